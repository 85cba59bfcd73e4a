/* plugin.c - a plug-in of somebody's program: it was linked with a libpeft, shared or static, and hands out what it got. */
#define KIT_LINK
#include "kit.h"

__attribute__((visibility("default"))) const kit_api *plugin_library(void);

const kit_api *plugin_library(void) {
    return &kit_linked;
}
