/* Linked into every C test: its first failure ends the program. cmocka leaves a test that fails by longjmp, and threads of a loop go
 * on with what lay on its stack: what they do then would hide the failure behind a crash or a hang. */
#include <stdlib.h>

__attribute__((constructor)) static void end_at_the_first_failure(void)
{
    setenv("CMOCKA_TEST_ABORT", "1", 0);
}
