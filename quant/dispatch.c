/* Which tiers this CPU and OS can run. */
#include <strings.h>
#include <unistd.h>

#include "quant/kernels.h"

#ifdef __x86_64__
#include <cpuid.h>
#include <sys/syscall.h>

/* Intel SDM volume 1, 13.2 and 13.3: state components of XCR0, which the OS sets when it saves their registers. */
enum { XCR0_AVX = 1u << 1 | 1u << 2, XCR0_AVX512 = XCR0_AVX | 7u << 5, XCR0_AMX = XCR0_AVX512 | 3u << 17 };

/* Linux, arch/x86/include/uapi/asm/prctl.h: asks that this process may use the tile data registers.
 * It then holds for all of its threads, also those that run already, and may be asked again. */
enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };

static uint32_t xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static bool has(uint32_t word, uint32_t bits)
{
    return (word & bits) == bits;
}

static bool has_vnni(void)
{
    uint32_t a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && has(c, bit_AVX512VNNI);
}

static bool has_avx512bf16(void)
{
    uint32_t a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && has(a, bit_AVX512BF16);
}

static bool can_run(nj_isa isa)
{
    uint32_t a, b, c, d, b7, c7, d7;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return false;
    if (!has(c, bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C) || !has(b7, bit_AVX2)) return false;
    uint32_t os = xcr0();
    bool avx512 = has(b7, bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ);
    switch (isa) {
    case NJ_ISA_AVX2: return has(os, XCR0_AVX);
    case NJ_ISA_AVX512: return avx512 && has(os, XCR0_AVX512);
    case NJ_ISA_AMX:
        return avx512 && has_vnni() && has_avx512bf16() && has(os, XCR0_AMX) &&
               has(d7, 1u << 22 | 1u << 24 | 1u << 25) && /* BF16, TILE, INT8 */
               syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
    default: return false;
    }
}
#endif

size_t nj_l2_bytes(void)
{
    long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE); /* the C library has read it at start */
    return bytes > 0 ? (size_t)bytes : 1 << 20;  /* a virtual machine may hide it */
}

const nj_kernels *nj_kernels_get(nj_isa isa)
{
    if (isa == NJ_ISA_SCALAR) return &nj_kernels_scalar;
#ifdef __x86_64__
    static const nj_kernels *const tables[NJ_ISA_COUNT] = {
        [NJ_ISA_AVX2] = &nj_kernels_avx2, [NJ_ISA_AVX512] = &nj_kernels_avx512, [NJ_ISA_AMX] = &nj_kernels_amx
    };
    if (isa >= NJ_ISA_COUNT || !can_run(isa)) return NULL;
    return isa == NJ_ISA_AVX512 && has_vnni() ? &nj_kernels_avx512vnni : tables[isa];
#else
    return NULL;
#endif
}

nj_isa nj_isa_best(void)
{
    nj_isa best = NJ_ISA_COUNT - 1;
    while (!nj_kernels_get(best)) best--;
    return best;
}

static const char *const isa_names[NJ_ISA_COUNT] = { "scalar", "avx2", "avx512", "amx" };

const char *nj_isa_name(nj_isa isa)
{
    return isa < NJ_ISA_COUNT ? isa_names[isa] : "unknown";
}

int nj_isa_find(const char *name)
{
    for (int isa = 0; isa < NJ_ISA_COUNT; isa++)
        if (strcasecmp(name, isa_names[isa]) == 0) return isa;
    return -1;
}
