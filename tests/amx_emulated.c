/* The AMX tier with its tile instructions in plain C, so that CPUs without AMX can test it. */
#define NJ_AMX_EMULATED
#define nj_kernels_amx nj_kernels_amx_emulated
#include "quant/x86/kernels_amx.c"
