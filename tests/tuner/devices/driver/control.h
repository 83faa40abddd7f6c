/* What the stub drivers answer: lines "key=value" of the file that TUNER_TEST_DRIVER names, read
   anew at every call, so that a test changes a card in mid-run.

   fail.FUNCTION=CODE makes a function return CODE, slow.FUNCTION=MS makes it wait first. */

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define TEXT 1024

static int has_driver(void) {
    const char *path = getenv("TUNER_TEST_DRIVER");
    return path != NULL && access(path, R_OK) == 0;
}

/* Copies the value of a key and returns 1, or returns 0 where the file has no such key. */
static int setting(const char *key, char *value, size_t size) {
    const char *path = getenv("TUNER_TEST_DRIVER");
    FILE *file = path == NULL ? NULL : fopen(path, "r");
    if (file == NULL) return 0;
    char line[TEXT];
    size_t length = strlen(key);
    int found = 0;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, key, length) != 0 || line[length] != '=') continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(value, size, "%s", line + length + 1);
        found = 1;
    }
    fclose(file);
    return found;
}

static double number(double otherwise, const char *format, ...) {
    char key[TEXT], value[TEXT];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(key, sizeof key, format, arguments);
    va_end(arguments);
    return setting(key, value, sizeof value) ? atof(value) : otherwise;
}

/* Waits as long as a function is told to, and returns the code that it is told to fail with. */
static int refusal(const char *function) {
    usleep((useconds_t)(1000 * number(0, "slow.%s", function)));
    return (int)number(0, "fail.%s", function);
}
