/* The module's state, and the engine that it has. */
#include "convert.h"

#include "runtime/runtime.h"

native_state *native_state_of(PyTypeObject *type)
{
    return PyModule_GetState(PyType_GetModuleByDef(type, &native_module));
}

bool native_owns_engine(const native_state *st)
{
    return NATIVE_LOAD(st->rt_generation) == sf__fork_generation();
}

sf_runtime *native_runtime(native_state *st)
{
    sf_runtime_options options = SF_RUNTIME_OPTIONS_INIT;
    sf_status rc = SF_OK;
    sf_runtime *rt;
    sf_error err;

    options.log = native_log;
    native_lock(&st->starting);
    if (st->rt && !native_owns_engine(st))
        st->rt = NULL; /* the parent's: its threads are not in this process, so it is left as it lies */
    if (!st->rt)
        rc = sf_runtime_new(&st->rt, &options, &err);
    if (rc == SF_OK)
        NATIVE_STORE(st->rt_generation, sf__fork_generation());
    rt = st->rt;
    native_unlock(&st->starting);
    if (rc != SF_OK)
        raise_error(st, &err);
    return rc == SF_OK ? rt : NULL;
}
