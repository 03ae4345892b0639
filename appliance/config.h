/* What the environment says. appliance/config.c is the only place that reads it, once, at the start of main. */
#ifndef NJ_CONFIG_H
#define NJ_CONFIG_H

#include <stdio.h>
#include <time.h>

#include "numa/nj_base.h"

typedef struct nj_config {
    bool      now_set;
    struct tm now;           /* NIGHTJAR_NOW: the moment that chat templates see */
    bool      color;         /* NO_COLOR is unset, TERM is not "dumb" */
    uint32_t  columns;       /* COLUMNS, or 0 when unset */
} nj_config;

/* Reads NIGHTJAR_NOW, NO_COLOR, TERM, COLUMNS and sets a UTF-8 character type. -EINVAL for a NIGHTJAR_NOW that is no
 * moment. */
int nj_config_read(nj_error *err);

/* "2026-11-20T07:00:00" (a space for the T and seconds left out are fine too), a moment that the calendar has. */
int nj_config_parse_now(const char *text, struct tm *out, nj_error *err);

const nj_config *nj_config_get(void);

/* What templates see as now: NIGHTJAR_NOW, or NULL for the present local time. */
const struct tm *nj_config_now(void);

/* Width of the terminal on `file`: COLUMNS, else what the terminal says, else 80. */
uint32_t nj_config_columns(FILE *file);

#endif
