// lookup PREFIX KEY...    integer keys, one after the other
package main

/*
#cgo pkg-config: shardyfusion
#include <stdlib.h>
#include <shardyfusion/reader.h>
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"
)

func failure(e *C.sf_error) error {
	return errors.New(C.GoString(&e.message[0]))
}

// Reader serves look-ups from any goroutine. A look-up that memory cannot answer holds its thread until the store has.
type Reader struct {
	runtime *C.sf_runtime
	reader  *C.sf_reader
}

func Open(prefix string) (*Reader, error) {
	var e C.sf_error
	r := &Reader{}
	p := C.CString(prefix)
	defer C.free(unsafe.Pointer(p))

	C.sf_error_init(&e)
	if C.sf_runtime_new(&r.runtime, nil, &e) != C.SF_OK {
		return nil, failure(&e)
	}
	if C.sf_reader_open(&r.reader, r.runtime, p, nil, &e) != C.SF_OK {
		C.sf_runtime_release(r.runtime)
		return nil, failure(&e)
	}
	return r, nil
}

func (r *Reader) Close() {
	C.sf_reader_free(r.reader)
	C.sf_runtime_release(r.runtime)
}

// Get returns nil for an absent key. The bytes are a copy.
func (r *Reader) Get(key int64, timeoutMs int64) ([]byte, error) {
	var e C.sf_error
	var v C.sf_value
	k := C.sf_key_int(C.int64_t(key))

	C.sf_error_init(&e)
	if C.sf_reader_get(r.reader, &k, C.int64_t(timeoutMs), &v, &e) != C.SF_OK {
		return nil, failure(&e)
	}
	defer C.sf_value_release(&v)
	if !v.found {
		return nil, nil
	}
	return C.GoBytes(unsafe.Pointer(v.bytes.p), C.int(v.bytes.n)), nil
}

func run() error {
	if len(os.Args) < 3 {
		return errors.New("usage: lookup PREFIX KEY...")
	}
	r, err := Open(os.Args[1])
	if err != nil {
		return err
	}
	defer r.Close()
	for _, arg := range os.Args[2:] {
		key, err := strconv.ParseInt(arg, 10, 64)
		if err != nil {
			return err
		}
		value, err := r.Get(key, 1000)
		if err != nil {
			return err
		}
		if value == nil {
			fmt.Printf("%s = (absent)\n", arg)
		} else {
			fmt.Printf("%s = %s\n", arg, value)
		}
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
