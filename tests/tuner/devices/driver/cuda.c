/* A stub of NVIDIA's CUDA driver library: the calls that name devices, with the rules of
   CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER (CUDA C Programming Guide, Environment Variables). */

#include "control.h"

enum { CUDA_SUCCESS = 0, INVALID_VALUE = 1, NOT_INITIALIZED = 3, NO_DEVICE = 100,
       INVALID_DEVICE = 101 };
#define MOST 16

typedef struct { int gpu, mig; } Visible; /* mig is -1 for a whole card */

static Visible visible[MOST];
static int visible_count = -1;

static int has_instances(int gpu) { return number(0, "gpu%d.migs", gpu) > 0; }

static void uuid_of(Visible device, char *uuid) {
    char key[TEXT];
    if (device.mig < 0) snprintf(key, sizeof key, "gpu%d.uuid", device.gpu);
    else snprintf(key, sizeof key, "gpu%d.mig%d.uuid", device.gpu, device.mig);
    if (!setting(key, uuid, TEXT)) uuid[0] = '\0';
}

/* The cards by bus, or the fastest first, which is the default. */
static int ordered(int *cards) {
    int count = (int)number(0, "gpus");
    const char *order = getenv("CUDA_DEVICE_ORDER");
    int by_bus = order != NULL && strcmp(order, "PCI_BUS_ID") == 0;
    for (int i = 0; i < count; i++) {
        int place = i;
        while (!by_bus && place > 0 &&
               number(0, "gpu%d.speed", cards[place - 1]) < number(0, "gpu%d.speed", i)) {
            cards[place] = cards[place - 1];
            place--;
        }
        cards[place] = i;
    }
    return count;
}

static void show(int gpu, int mig) {
    if (mig < 0 && has_instances(gpu)) mig = 0;
    visible[visible_count++] = (Visible){gpu, mig};
}

/* Shows what one entry of the variable names; an unknown one hides itself and all after it. */
static int show_named(const char *entry, const int *cards, int count) {
    char uuid[TEXT];
    if (isdigit((unsigned char)entry[0])) {
        int index = atoi(entry);
        if (index >= count) return 0;
        show(cards[index], -1);
        return 1;
    }
    for (int gpu = 0; gpu < count; gpu++) {
        uuid_of((Visible){gpu, -1}, uuid);
        if (strncmp(entry, "GPU-", 4) == 0 && strncmp(entry + 4, uuid, strlen(entry + 4)) == 0) {
            show(gpu, -1);
            return 1;
        }
        for (int mig = 0; mig < number(0, "gpu%d.migs", gpu); mig++) {
            uuid_of((Visible){gpu, mig}, uuid);
            if (strncmp(entry, "MIG-", 4) == 0 && strcmp(entry + 4, uuid) == 0) {
                show(gpu, mig);
                return 1;
            }
        }
    }
    return 0;
}

EXPORT int cuInit(unsigned int flags) {
    int cards[MOST], count = ordered(cards), code = refusal("cuInit");
    if (code || flags) return code ? code : INVALID_VALUE;
    if (!has_driver()) return NO_DEVICE;
    const char *named = getenv("CUDA_VISIBLE_DEVICES");
    visible_count = 0;
    if (named == NULL) {
        for (int i = 0; i < count; i++) show(cards[i], -1);
    } else {
        char list[TEXT], *rest = list;
        snprintf(list, sizeof list, "%s", named);
        for (char *entry = strtok_r(list, ",", &rest); entry != NULL;
             entry = strtok_r(NULL, ",", &rest))
            if (!show_named(entry, cards, count)) break;
    }
    return visible_count ? CUDA_SUCCESS : NO_DEVICE;
}

EXPORT int cuDeviceGetCount(int *count) {
    if (visible_count < 0) return NOT_INITIALIZED;
    *count = visible_count;
    return refusal("cuDeviceGetCount");
}

EXPORT int cuDeviceGet(int *device, int ordinal) {
    if (ordinal < 0 || ordinal >= visible_count) return INVALID_DEVICE;
    *device = ordinal;
    return refusal("cuDeviceGet");
}

static int octets(Visible device, unsigned char *uuid) {
    char text[TEXT];
    int place = 0;
    uuid_of(device, text);
    for (const char *digit = text; *digit != '\0' && place < 16; digit++) {
        if (*digit == '-') continue;
        char pair[3] = {digit[0], digit[1], '\0'};
        uuid[place++] = (unsigned char)strtol(pair, NULL, 16);
        digit++;
    }
    return place == 16 ? CUDA_SUCCESS : INVALID_VALUE;
}

EXPORT int cuDeviceGetUuid(unsigned char *uuid, int device) {
    int code = refusal("cuDeviceGetUuid");
    return code ? code : octets((Visible){visible[device].gpu, -1}, uuid);
}

EXPORT int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    int code = refusal("cuDeviceGetUuid_v2");
    return code ? code : octets(visible[device], uuid);
}

/* Copies what a key of the card tells, without its first `skipped` characters. */
static int copied(const char *what, int skipped, char *text, int size, int device) {
    char key[TEXT], value[TEXT];
    snprintf(key, sizeof key, "gpu%d.%s", visible[device].gpu, what);
    if (!setting(key, value, sizeof value)) return INVALID_VALUE;
    return snprintf(text, (size_t)size, "%s", value + skipped) < size ? CUDA_SUCCESS
                                                                      : INVALID_VALUE;
}

/* CUDA writes the domain with four digits, NVML with eight. */
EXPORT int cuDeviceGetPCIBusId(char *bus_id, int size, int device) {
    int code = refusal("cuDeviceGetPCIBusId");
    return code ? code : copied("pci", 4, bus_id, size, device);
}

EXPORT int cuDeviceGetName(char *name, int size, int device) {
    int code = refusal("cuDeviceGetName");
    return code ? code : copied("name", 0, name, size, device);
}

EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int code = refusal("cuDeviceGetAttribute");
    *value = (int)number(0, "gpu%d.attribute%d", visible[device].gpu, attribute);
    return code;
}

EXPORT int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = (size_t)number(0, "gpu%d.memory_total", visible[device].gpu);
    return refusal("cuDeviceTotalMem_v2");
}

EXPORT int cuGetErrorString(int code, const char **text) {
    switch (code) {
    case NO_DEVICE: *text = "no CUDA-capable device is detected"; return CUDA_SUCCESS;
    case 802: *text = "system not yet initialized"; return CUDA_SUCCESS;
    default: *text = NULL; return INVALID_VALUE;
    }
}
