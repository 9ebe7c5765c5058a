/* The version of these headers, and of the library that a program has loaded. Any thread.
 *
 * While the major version is 0 the ABI may change with the minor one, and the soname with it. Else a program that was built
 * against these headers runs with every later library of the same soname: functions, values of enums and fields stay as they are,
 * new fields come at the end of structs that begin with `size` (style.md, 2), and all other structs never change. */
#ifndef SHARDYFUSION_VERSION_H
#define SHARDYFUSION_VERSION_H

#define SF_VERSION_MAJOR 0
#define SF_VERSION_MINOR 1
#define SF_VERSION_PATCH 0
#define SF_VERSION_STRING "0.1.0"
/* For #if: SF_VERSION >= SF_VERSION_OF(0, 2, 0). */
#define SF_VERSION_OF(major, minor, patch) ((major) * 1000000 + (minor) * 1000 + (patch))
#define SF_VERSION SF_VERSION_OF(SF_VERSION_MAJOR, SF_VERSION_MINOR, SF_VERSION_PATCH)

#endif
