/* The header of a synthetic model file. Private to engine/. */
#ifndef NJ_SHAPE_H
#define NJ_SHAPE_H

#include "engine/nj_engine.h"

/* Replaces *out by the GGUF header (keys, vocabulary, tensors) that a real file of this shape would have;
 * *file_bytes: what the whole file takes. -EINVAL for a shape that no file can have. */
int nj_shape_header(const nj_shape *s, nj_buf *out, uint64_t *file_bytes, nj_error *err);

#endif
