/* From a struct's member back to the struct, for tasks, timers and operations that their owners embed. */
#ifndef SF_BASE_CONTAINER_H
#define SF_BASE_CONTAINER_H

#include <stddef.h>

#define sf_container_of(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))

#endif
