// lookup PREFIX KEY...    integer keys, one after the other
//     bindgen --generate-inline-functions --allowlist-function "sf_.*" --allowlist-type "sf_.*" shardyfusion.h -o bindings.rs
//     BINDINGS=$PWD/bindings.rs rustc main.rs $(pkg-config --libs shardyfusion)
#![allow(non_camel_case_types, non_upper_case_globals, dead_code)]

use std::ffi::{CStr, CString};
use std::{env, mem, process, ptr, slice};

mod sys {
    include!(env!("BINDINGS"));
}

fn new_error() -> sys::sf_error {
    unsafe {
        let mut e = mem::zeroed();
        sys::sf_error_init(&mut e);
        e
    }
}

fn failure(e: &sys::sf_error) -> String {
    unsafe { CStr::from_ptr(e.message.as_ptr()).to_string_lossy().into_owned() }
}

/// Serves look-ups from any thread: the library's own rule, so both are true of the handles.
struct Reader {
    runtime: *mut sys::sf_runtime,
    reader: *mut sys::sf_reader,
}
unsafe impl Send for Reader {}
unsafe impl Sync for Reader {}

impl Reader {
    fn open(prefix: &str) -> Result<Reader, String> {
        let prefix = CString::new(prefix).map_err(|e| e.to_string())?;
        let mut e = new_error();
        let mut r = Reader { runtime: ptr::null_mut(), reader: ptr::null_mut() };
        unsafe {
            if sys::sf_runtime_new(&mut r.runtime, ptr::null(), &mut e) != sys::sf_status_SF_OK
                || sys::sf_reader_open(&mut r.reader, r.runtime, prefix.as_ptr(), ptr::null(), &mut e) != sys::sf_status_SF_OK
            {
                return Err(failure(&e));
            }
        }
        Ok(r)
    }

    fn get(&self, key: i64, timeout_ms: i64) -> Result<Option<Vec<u8>>, String> {
        let mut e = new_error();
        unsafe {
            let key = sys::sf_key_int(key);
            let mut value: sys::sf_value = mem::zeroed();
            if sys::sf_reader_get(self.reader, &key, timeout_ms, &mut value, &mut e) != sys::sf_status_SF_OK {
                return Err(failure(&e));
            }
            let found = match (value.found, value.bytes.n) {
                (false, _) => None,
                (true, 0) => Some(Vec::new()),
                (true, n) => Some(slice::from_raw_parts(value.bytes.p, n as usize).to_vec()),
            };
            sys::sf_value_release(&mut value);
            Ok(found)
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        unsafe {
            sys::sf_reader_free(self.reader); // both take NULL
            sys::sf_runtime_release(self.runtime);
        }
    }
}

fn run() -> Result<(), String> {
    let args: Vec<String> = env::args().collect();
    if args.len() < 3 {
        return Err("usage: lookup PREFIX KEY...".into());
    }
    let reader = Reader::open(&args[1])?;
    for arg in &args[2..] {
        let key = arg.parse::<i64>().map_err(|e| e.to_string())?;
        match reader.get(key, 1000)? {
            Some(value) => println!("{} = {}", arg, String::from_utf8_lossy(&value)),
            None => println!("{} = (absent)", arg),
        }
    }
    Ok(())
}

fn main() {
    if let Err(e) = run() {
        eprintln!("{}", e);
        process::exit(1);
    }
}
