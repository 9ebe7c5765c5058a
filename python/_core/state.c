/* The module's state, and the engine that it has. */
#include "convert.h"

#include "runtime/runtime.h"

native_state *native_state_of(PyTypeObject *type)
{
    return PyModule_GetState(PyType_GetModuleByDef(type, &native_module));
}

bool native_owns_engine(const native_state *st)
{
    return st->rt_generation == sf__fork_generation();
}

sf_runtime *native_runtime(native_state *st)
{
    sf_runtime_options options = SF_RUNTIME_OPTIONS_INIT;
    sf_error err;

    options.log = native_log;
    if (st->rt && !native_owns_engine(st))
        st->rt = NULL; /* the parent's: its threads are not in this process, so it is left as it lies */
    if (!st->rt && sf_runtime_new(&st->rt, &options, &err) != SF_OK) {
        raise_error(st, &err);
        return NULL;
    }
    st->rt_generation = sf__fork_generation();
    return st->rt;
}
