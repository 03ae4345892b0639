/* A progress bar with rate and time left: redrawn in place when stderr is a terminal, one line every 5 s when it is
 * not, nothing when quiet. One bar at a time; one thread. */
#ifndef NJ_PROGRESS_H
#define NJ_PROGRESS_H

#include "numa/nj_base.h"

typedef struct nj_progress {
    const char *title;     /* "Loading nano.gguf"; kept by pointer */
    const char *unit;      /* "tokens", "requests"; NULL: bytes, shown as MB and GB */
    bool        quiet, terminal, drawn;
    uint64_t    start_ns;
    uint64_t    next_ns;   /* not drawn again before */
    uint64_t    base;      /* what was done before we started (a resumed batch): not part of the rate */
    uint64_t    done, total;
    uint64_t    printed;   /* done on the last line, when stderr is no terminal */
    char        note[96];  /* free text at the end of the line, or "" */
} nj_progress;

void nj_progress_begin(nj_progress *p, const char *title, const char *unit, bool quiet);

/* Call as often as you like: draws at most ten times a second. total 0: not known. */
void nj_progress_update(nj_progress *p, uint64_t done, uint64_t total);

/* As an nj_model_options.progress callback (`p` is the bar). */
void nj_progress_callback(void *p, uint64_t done, uint64_t total);

/* Text shown at the end of the line from now on. */
void nj_progress_note(nj_progress *p, const char *fmt, ...) NJ_PRINTF(2, 3);

/* Prints a line on stderr above the bar (also without a bar, and for a quiet one). */
void nj_progress_say(nj_progress *p, const char *fmt, ...) NJ_PRINTF(2, 3);

/* Takes the bar off the terminal; otherwise prints a last line if any was printed. Harmless twice. */
void nj_progress_end(nj_progress *p);

/* The line as it is drawn, at most columns - 1 columns wide (pure; what the functions above print). */
void nj_progress_format(const nj_progress *p, uint64_t now_ns, uint32_t columns, char *out, size_t size);

/* "1.4 GB", "312 kB"; "1h 02m", "3m 20s", "45 s": short text for people. */
void nj_text_bytes(double bytes, char out[24]);
void nj_text_duration(double seconds, char out[24]);

#endif
