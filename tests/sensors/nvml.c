/* A library with NVML's names, for one accelerator: what it draws and is capped to is kept in memory; each cap is written to
   the file that the environment names by NVML_CAPS, too, for whoever looks from outside. */
#include <stdio.h>
#include <stdlib.h>

static unsigned limit_mw = 300000, power_mw = 212000;
static unsigned long long used_mj = 1000;

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = &limit_mw; return index ? 2 : 0; }
int nvmlDeviceGetPowerUsage(void *device, unsigned *mw) {
    unsigned *limit = device;
    *mw = power_mw < *limit ? power_mw : *limit;
    return 0;
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) { *celsius = 61; return sensor; }
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *mj) { *mj = used_mj += 500; return 0; }
int nvmlDeviceGetPowerManagementLimitConstraints(void *device, unsigned *least, unsigned *most) {
    *least = 100000;
    *most = 350000;
    return 0;
}
int nvmlDeviceGetPowerManagementLimit(void *device, unsigned *mw) { *mw = *(unsigned *)device; return 0; }
int nvmlDeviceSetPowerManagementLimit(void *device, unsigned mw) {
    if (mw < 100000 || mw > 350000)
        return 2;
    limit_mw = mw;
    const char *path = getenv("NVML_CAPS");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (file) {
        fprintf(file, "%u", mw);
        fclose(file);
    }
    return 0;
}
