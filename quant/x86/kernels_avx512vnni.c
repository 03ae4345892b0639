/* AVX-512 with VNNI. */
#include "quant/x86/avx512.h"
#include "quant/x86/vnni.h"

#include "quant/kernels.inc"

#define KERNELS nj_kernels_avx512vnni
#define TIER    NJ_ISA_AVX512
#include "quant/kernels_table.inc"
