/* Text of files made fit for a terminal and for JSON: models and prompts may hold any bytes. */
#ifndef NJ_TEXT_H
#define NJ_TEXT_H

#include "numa/nj_base.h"

/* Appends at most `bytes_max` bytes of text (0: all), whole characters, with control characters and invalid bytes
 * written as \n, \t or \xNN, so that no file can steer the terminal. "..." follows when something was left out. */
void nj_text_escape(nj_buf *out, const char *text, size_t len, size_t bytes_max);

/* The same between double quotes, those of the text itself and backslashes written as \" and \\. */
void nj_text_quote(nj_buf *out, const char *text, size_t len, size_t bytes_max);

/* A JSON string, invalid UTF-8 replaced by U+FFFD. NULL without memory. */
struct json_t *nj_text_json(const char *text, size_t len);

/* Length of the character at text[0], 1 to 4, or 0 when the bytes there are no valid UTF-8 character. */
size_t nj_text_char(const char *text, size_t len);

/* Prints a JSON document and a newline on stdout, and frees it. -ENOMEM for NULL. */
int nj_text_json_print(struct json_t *document, nj_error *err);

#endif
