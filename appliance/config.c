#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "appliance/config.h"

static nj_config config;

int nj_config_parse_now(const char *text, struct tm *out, nj_error *err)
{
    static const char *const formats[] = { "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M",
                                           "%Y-%m-%d %H:%M" };
    for (size_t i = 0; i < NJ_COUNT(formats); i++) {
        struct tm tm = { .tm_isdst = -1 };
        const char *end = strptime(text, formats[i], &tm);
        if (!end || *end) continue;
        /* The moment is taken as it reads, in no time zone; timegm normalises, so a changed day is no calendar day. */
        struct tm same = tm;
        if (timegm(&same) == (time_t)-1 || same.tm_mday != tm.tm_mday || same.tm_mon != tm.tm_mon || tm.tm_sec > 59)
            break;
        same.tm_isdst = -1;
        *out = same;
        return 0;
    }
    nj_fail(err, -EINVAL, "\"%s\" is not a moment.", text);
    nj_remedy(err, "Write it like 2026-11-20T07:00:00.");
    return -EINVAL;
}

static uint32_t parse_columns(const char *text)
{
    char *end;
    if (!text || *text < '0' || *text > '9') return 0;
    unsigned long n = strtoul(text, &end, 10);
    return *end || n < 20 || n > 10000 ? 0 : (uint32_t)n;
}

int nj_config_read(nj_error *err)
{
    /* Line editing and column counts need a UTF-8 character type; everything else stays in the C locale. */
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");

    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR"), *now = getenv("NIGHTJAR_NOW");
    config = (nj_config){ .columns = parse_columns(getenv("COLUMNS")) };
    config.color = !(no_color && *no_color) && term && *term && strcmp(term, "dumb") != 0;
    if (!now || !*now) return 0;
    if (nj_config_parse_now(now, &config.now, err) != 0) return nj_error_prefix(err, "NIGHTJAR_NOW");
    config.now_set = true;
    return 0;
}

const nj_config *nj_config_get(void)
{
    return &config;
}

const struct tm *nj_config_now(void)
{
    return config.now_set ? &config.now : NULL;
}

uint32_t nj_config_columns(FILE *file)
{
    struct winsize size;
    if (config.columns) return config.columns;
    if (ioctl(fileno(file), TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) return size.ws_col;
    return 80;
}
