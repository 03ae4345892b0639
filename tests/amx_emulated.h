/* The AMX tier over emulated tiles. Include after cmocka.h. */
#ifndef NJ_TEST_AMX_EMULATED_H
#define NJ_TEST_AMX_EMULATED_H

#include <stdio.h>

#include "quant/kernels.h"

#ifdef __x86_64__
extern const nj_kernels nj_kernels_amx_emulated; /* tests/amx_emulated.c */
#endif

/* Its kernels, or a visible skip. */
static inline const nj_kernels *emulated_amx(const char *test)
{
#ifdef __x86_64__
    if (nj_kernels_get(NJ_ISA_AVX512) && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16"))
        return &nj_kernels_amx_emulated;
#endif
    printf("SKIP %s: this CPU or OS can't run AVX-512 with VNNI and BF16\n", test);
    skip();
    return NULL;
}

#endif
