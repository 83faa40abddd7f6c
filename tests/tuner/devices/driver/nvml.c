/* A stub of NVIDIA's management library. It speaks the binary interface of nvml.h: the same
   structures, versions and codes. What no key tells is not supported. */

#include "control.h"

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
       INSUFFICIENT_SIZE = 7, LIBRARY_NOT_FOUND = 12, GPU_IS_LOST = 15, VERSION_MISMATCH = 25 };
#define GPUS 8
#define INSTANCES 8
#define PROCESSES 32
#define METRICS 13
#define GPM_INTERVAL_S 0.1

typedef struct { int gpu, mig; } Handle; /* mig is -1 for a whole card */
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } Memory2;
typedef struct { unsigned int gpu, memory; } Utilization;
typedef struct { unsigned int version, sensor; int temperature; } Temperature;
typedef struct { unsigned int pid; unsigned long long used; unsigned int gi, ci; } Process;
typedef struct { unsigned int pid; unsigned long long stamp; unsigned int sm, mem, enc, dec; } Share;
typedef struct { char legacy[16]; unsigned int domain, bus, device, id, subsystem; char bus_id[32]; }
    Pci;
typedef struct { double t, rates[METRICS]; int gpu, gi; } Sample;
typedef struct { unsigned int id; int code; double value; const char *names[3]; } Metric;
typedef struct { unsigned int version, count; Sample *first, *second; Metric metrics[]; } Request;
typedef struct { unsigned int version, is_supported; } Support;

static Handle handles[GPUS][INSTANCES + 1];
static int initialised = 0, samples = 0;

/* For tests: how often it is initialised and not shut down, and how many samples are not freed. */
EXPORT int stubInitialised(void) { return initialised; }
EXPORT int stubSamples(void) { return samples; }

static Handle *handle_of(int gpu, int mig) {
    Handle *handle = &handles[gpu][mig + 1];
    *handle = (Handle){gpu, mig};
    return handle;
}

static void key_of(char *key, const Handle *handle, const char *what) {
    if (handle->mig < 0) snprintf(key, TEXT, "gpu%d.%s", handle->gpu, what);
    else snprintf(key, TEXT, "gpu%d.mig%d.%s", handle->gpu, handle->mig, what);
}

static int told(const Handle *handle, const char *what, char *value) {
    char key[TEXT];
    key_of(key, handle, what);
    return setting(key, value, TEXT);
}

/* What every call on a device checks first. */
static int fault(const char *function, const Handle *handle) {
    if (!initialised) return UNINITIALIZED;
    if (handle == NULL) return INVALID_ARGUMENT;
    if (number(0, "gpu%d.lost", handle->gpu)) return GPU_IS_LOST;
    return refusal(function);
}

static int read_number(const char *function, const Handle *handle, const char *what, double *value) {
    char text[TEXT];
    int code = fault(function, handle);
    if (code) return code;
    if (!told(handle, what, text)) return NOT_SUPPORTED;
    *value = atof(text);
    return SUCCESS;
}

static int read_unsigned(const char *function, const Handle *handle, const char *what,
                         unsigned int *value) {
    double read = 0;
    int code = read_number(function, handle, what, &read);
    if (!code) *value = (unsigned int)read;
    return code;
}

static int read_text(const char *function, const Handle *handle, const char *what, char *text,
                     unsigned int size) {
    char value[TEXT];
    int code = fault(function, handle);
    if (code) return code;
    if (!told(handle, what, value)) return NOT_SUPPORTED;
    return (unsigned int)snprintf(text, size, "%s", value) < size ? SUCCESS : INSUFFICIENT_SIZE;
}

EXPORT int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    if (!has_driver()) return LIBRARY_NOT_FOUND;
    int code = refusal("nvmlInitWithFlags");
    if (!code) initialised++;
    return code;
}

EXPORT int nvmlShutdown(void) {
    if (!initialised) return UNINITIALIZED;
    initialised--;
    return SUCCESS;
}

EXPORT const char *nvmlErrorString(int code) { (void)code; return "Stub Error"; }

EXPORT int nvmlSystemGetDriverVersion(char *version, unsigned int size) {
    char value[TEXT];
    int code = refusal("nvmlSystemGetDriverVersion");
    if (code) return code;
    if (!setting("driver", value, sizeof value)) return NOT_SUPPORTED;
    snprintf(version, size, "%s", value);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetCount_v2(unsigned int *count) {
    *count = (unsigned int)number(0, "gpus");
    return refusal("nvmlDeviceGetCount_v2");
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned int index, Handle **handle) {
    if (index >= number(0, "gpus")) return INVALID_ARGUMENT;
    *handle = handle_of((int)index, -1);
    return fault("nvmlDeviceGetHandleByIndex_v2", *handle);
}

EXPORT int nvmlDeviceGetHandleByUUID(const char *uuid, Handle **handle) {
    char value[TEXT];
    int code = refusal("nvmlDeviceGetHandleByUUID");
    if (code) return code;
    for (int gpu = 0; gpu < number(0, "gpus"); gpu++)
        for (int mig = -1; mig < number(0, "gpu%d.migs", gpu); mig++) {
            *handle = handle_of(gpu, mig);
            if (strncmp(uuid, mig < 0 ? "GPU-" : "MIG-", 4) == 0 && told(*handle, "uuid", value) &&
                strcmp(uuid + 4, value) == 0)
                return SUCCESS;
        }
    return NOT_FOUND;
}

EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, Handle **handle) {
    char value[TEXT];
    int code = refusal("nvmlDeviceGetHandleByPciBusId_v2");
    if (code) return code;
    for (int gpu = 0; gpu < number(0, "gpus"); gpu++) {
        *handle = handle_of(gpu, -1);
        if (!told(*handle, "pci", value)) continue;
        if (strcasecmp(bus_id, value) == 0 || strcasecmp(bus_id, value + 4) == 0) return SUCCESS;
    }
    return NOT_FOUND;
}

EXPORT int nvmlDeviceGetName(Handle *handle, char *name, unsigned int size) {
    return read_text("nvmlDeviceGetName", handle, "name", name, size);
}

EXPORT int nvmlDeviceGetUUID(Handle *handle, char *uuid, unsigned int size) {
    if (size < 5) return INSUFFICIENT_SIZE;
    int code = read_text("nvmlDeviceGetUUID", handle, "uuid", uuid + 4, size - 4);
    memcpy(uuid, handle->mig < 0 ? "GPU-" : "MIG-", 4);
    return code;
}

EXPORT int nvmlDeviceGetPciInfo_v3(Handle *handle, Pci *pci) {
    memset(pci, 0, sizeof *pci);
    return read_text("nvmlDeviceGetPciInfo_v3", handle, "pci", pci->bus_id, sizeof pci->bus_id);
}

EXPORT int nvmlDeviceGetCudaComputeCapability(Handle *handle, int *major, int *minor) {
    char text[TEXT];
    int code = read_text("nvmlDeviceGetCudaComputeCapability", handle, "capability", text, TEXT);
    return code ? code : (sscanf(text, "%d.%d", major, minor) == 2 ? SUCCESS : NOT_SUPPORTED);
}

static int read_memory(const char *function, Handle *handle, Memory2 *memory) {
    double total = 0, used = 0, reserved = 0;
    int code = read_number(function, handle, "memory_total", &total);
    if (!code) code = read_number(function, handle, "memory_used", &used);
    if (!code) code = read_number(function, handle, "memory_reserved", &reserved);
    memory->total = (unsigned long long)total;
    memory->used = (unsigned long long)used;
    memory->reserved = (unsigned long long)reserved;
    memory->free = memory->total - memory->used - memory->reserved;
    return code;
}

EXPORT int nvmlDeviceGetMemoryInfo_v2(Handle *handle, Memory2 *memory) {
    if (memory->version != (sizeof(Memory2) | 2u << 24)) return VERSION_MISMATCH;
    return read_memory("nvmlDeviceGetMemoryInfo_v2", handle, memory);
}

/* Version 1 counts what the driver reserves as used. */
EXPORT int nvmlDeviceGetMemoryInfo(Handle *handle, Memory *memory) {
    Memory2 read = {0};
    int code = read_memory("nvmlDeviceGetMemoryInfo", handle, &read);
    *memory = (Memory){read.total, read.free, read.used + read.reserved};
    return code;
}

EXPORT int nvmlDeviceGetUtilizationRates(Handle *handle, Utilization *rates) {
    rates->memory = 0;
    return read_unsigned("nvmlDeviceGetUtilizationRates", handle, "util", &rates->gpu);
}

EXPORT int nvmlDeviceGetPowerUsage(Handle *handle, unsigned int *milliwatts) {
    return read_unsigned("nvmlDeviceGetPowerUsage", handle, "power_mw", milliwatts);
}

EXPORT int nvmlDeviceGetEnforcedPowerLimit(Handle *handle, unsigned int *milliwatts) {
    return read_unsigned("nvmlDeviceGetEnforcedPowerLimit", handle, "power_limit_mw", milliwatts);
}

EXPORT int nvmlDeviceGetTotalEnergyConsumption(Handle *handle, unsigned long long *millijoules) {
    double read = 0;
    int code = read_number("nvmlDeviceGetTotalEnergyConsumption", handle, "energy_mj", &read);
    *millijoules = (unsigned long long)read;
    return code;
}

EXPORT int nvmlDeviceGetTemperatureV(Handle *handle, Temperature *temperature) {
    if (temperature->version != (sizeof(Temperature) | 1u << 24)) return VERSION_MISMATCH;
    unsigned int celsius = 0;
    int code = read_unsigned("nvmlDeviceGetTemperatureV", handle, "temperature", &celsius);
    temperature->temperature = (int)celsius;
    return code;
}

EXPORT int nvmlDeviceGetTemperature(Handle *handle, unsigned int sensor, unsigned int *celsius) {
    (void)sensor;
    return read_unsigned("nvmlDeviceGetTemperature", handle, "temperature", celsius);
}

static int read_reasons(const char *function, Handle *handle, unsigned long long *reasons) {
    unsigned int bits = 0;
    int code = read_unsigned(function, handle, "reasons", &bits);
    *reasons = bits;
    return code;
}

EXPORT int nvmlDeviceGetCurrentClocksEventReasons(Handle *handle, unsigned long long *reasons) {
    return read_reasons("nvmlDeviceGetCurrentClocksEventReasons", handle, reasons);
}

EXPORT int nvmlDeviceGetCurrentClocksThrottleReasons(Handle *handle, unsigned long long *reasons) {
    return read_reasons("nvmlDeviceGetCurrentClocksThrottleReasons", handle, reasons);
}

EXPORT int nvmlDeviceGetClockInfo(Handle *handle, unsigned int type, unsigned int *mhz) {
    if (type != 1) return INVALID_ARGUMENT;
    return read_unsigned("nvmlDeviceGetClockInfo", handle, "sm_clock", mhz);
}

EXPORT int nvmlDeviceGetMaxClockInfo(Handle *handle, unsigned int type, unsigned int *mhz) {
    if (type != 1) return INVALID_ARGUMENT;
    return read_unsigned("nvmlDeviceGetMaxClockInfo", handle, "sm_clock_max", mhz);
}

/* "pid:bytes,pid:bytes"; without bytes, how many is not available. */
static int read_processes(const char *function, Handle *handle, const char *what,
                          unsigned int *count, Process *processes) {
    char list[TEXT] = "", *rest = list;
    unsigned int found = 0;
    int code = fault(function, handle);
    if (code) return code;
    told(handle, what, list);
    for (char *entry = strtok_r(list, ",", &rest); entry; entry = strtok_r(NULL, ",", &rest)) {
        char *bytes = strchr(entry, ':');
        if (found < *count)
            processes[found] = (Process){(unsigned int)atol(entry),
                                         bytes ? strtoull(bytes + 1, NULL, 10) : ~0ULL,
                                         ~0u, ~0u};
        found++;
    }
    code = found > *count ? INSUFFICIENT_SIZE : SUCCESS;
    *count = found;
    return code;
}

#define PROCESS_LIST(kind, version, what)                                                        \
    EXPORT int nvmlDeviceGet##kind##RunningProcesses_##version(                                  \
        Handle *handle, unsigned int *count, Process *processes) {                               \
        return read_processes("nvmlDeviceGet" #kind "RunningProcesses_" #version, handle, what,  \
                              count, processes);                                                 \
    }
PROCESS_LIST(Compute, v3, "compute")
PROCESS_LIST(Compute, v2, "compute")
PROCESS_LIST(Graphics, v3, "graphics")
PROCESS_LIST(Graphics, v2, "graphics")

/* "pid:percent:microseconds,…", of which those after `since` are told. */
EXPORT int nvmlDeviceGetProcessUtilization(Handle *handle, Share *shares, unsigned int *count,
                                           unsigned long long since) {
    char list[TEXT] = "", *rest = list;
    unsigned int found = 0;
    int code = fault("nvmlDeviceGetProcessUtilization", handle);
    if (code) return code;
    if (handle->mig >= 0 || number(0, "gpu%d.migs", handle->gpu)) return NOT_SUPPORTED;
    told(handle, "shares", list);
    for (char *entry = strtok_r(list, ",", &rest); entry; entry = strtok_r(NULL, ",", &rest)) {
        Share share = {0};
        if (sscanf(entry, "%u:%u:%llu", &share.pid, &share.sm, &share.stamp) != 3) continue;
        if (share.stamp <= since) continue;
        if (shares != NULL && found < *count) shares[found] = share;
        found++;
    }
    code = found == 0 ? NOT_FOUND : (found > *count ? INSUFFICIENT_SIZE : SUCCESS);
    *count = found;
    return code;
}

EXPORT int nvmlDeviceIsMigDeviceHandle(Handle *handle, unsigned int *is_mig) {
    *is_mig = handle->mig >= 0;
    return fault("nvmlDeviceIsMigDeviceHandle", handle);
}

EXPORT int nvmlDeviceGetMigMode(Handle *handle, unsigned int *current, unsigned int *pending) {
    *current = *pending = number(0, "gpu%d.migs", handle->gpu) > 0;
    return fault("nvmlDeviceGetMigMode", handle);
}

EXPORT int nvmlDeviceGetGpuInstanceId(Handle *handle, unsigned int *id) {
    return read_unsigned("nvmlDeviceGetGpuInstanceId", handle, "gi", id);
}

EXPORT int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Handle *instance, Handle **card) {
    if (instance->mig < 0) return INVALID_ARGUMENT;
    *card = handle_of(instance->gpu, -1);
    return fault("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", *card);
}

EXPORT int nvmlGpmQueryDeviceSupport(Handle *handle, Support *support) {
    if (support->version != 1) return VERSION_MISMATCH;
    int code = fault("nvmlGpmQueryDeviceSupport", handle);
    support->is_supported = number(0, "gpu%d.gpm", handle->gpu) != 0;
    return code;
}

EXPORT int nvmlGpmSampleAlloc(Sample **sample) {
    int code = refusal("nvmlGpmSampleAlloc");
    if (code) return code;
    *sample = calloc(1, sizeof **sample);
    samples++;
    return SUCCESS;
}

EXPORT int nvmlGpmSampleFree(Sample *sample) {
    free(sample);
    samples--;
    return SUCCESS;
}

/* A sample holds the rates "gpm2", "gpm3", … of its moment. */
static void take(const Handle *card, int gi, const char *prefix, Sample *sample) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    sample->t = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    sample->gpu = card->gpu;
    sample->gi = gi;
    for (int id = 0; id < METRICS; id++)
        sample->rates[id] = number(0, "gpu%d.%sgpm%d", card->gpu, prefix, id);
}

EXPORT int nvmlGpmSampleGet(Handle *handle, Sample *sample) {
    int code = fault("nvmlGpmSampleGet", handle);
    if (code) return code;
    if (handle->mig >= 0 || number(0, "gpu%d.migs", handle->gpu)) return NOT_SUPPORTED;
    take(handle, -1, "", sample);
    return SUCCESS;
}

EXPORT int nvmlGpmMigSampleGet(Handle *card, unsigned int gi, Sample *sample) {
    char prefix[TEXT];
    int code = fault("nvmlGpmMigSampleGet", card);
    if (code || card->mig >= 0) return code ? code : INVALID_ARGUMENT;
    for (int mig = 0; mig < number(0, "gpu%d.migs", card->gpu); mig++)
        if ((unsigned int)number(-1, "gpu%d.mig%d.gi", card->gpu, mig) == gi) {
            snprintf(prefix, sizeof prefix, "mig%d.", mig);
            take(card, (int)gi, prefix, sample);
            return SUCCESS;
        }
    return NOT_FOUND;
}

/* Between two samples a rate is taken as linear: the mean of both ends. */
EXPORT int nvmlGpmMetricsGet(Request *request) {
    if (request->version != 1) return VERSION_MISMATCH;
    int code = refusal("nvmlGpmMetricsGet");
    const Sample *first = request->first, *second = request->second;
    if (code) return code;
    if (first->gpu != second->gpu || first->gi != second->gi || !(first->t > 0) ||
        second->t - first->t < GPM_INTERVAL_S)
        return INVALID_ARGUMENT;
    for (unsigned int i = 0; i < request->count; i++) {
        Metric *metric = &request->metrics[i];
        if (metric->id >= METRICS) return INVALID_ARGUMENT;
        metric->code = (int)number(0, "fail.gpm%u", metric->id);
        metric->value = (first->rates[metric->id] + second->rates[metric->id]) / 2;
    }
    return SUCCESS;
}
