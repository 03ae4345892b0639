/* Probes: the read ceiling of memory and the peak rates of the arithmetic units. See nj_numa.h. */
#include "numa/nj_numa.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BYTES_DEFAULT (UINT64_C(2) << 30)
#define BYTES_MIN     (UINT64_C(64) << 20)
#define BLOCK_BYTES   256u /* read per stream and turn */
#define STREAMS_MAX   4u
#define AHEAD_BYTES   4096u
#define TRIALS        3

/* How a worker walks over its part: in so many streams side by side, with or without asking for lines ahead.
 * Which one is fastest is found by trying, as machines differ. Zen 4 (2 threads, huge pages, medians of 14): 1 stream
 * 31.0 GB/s, 2 streams 25.2, 4 streams 25.8; with prefetch 31.8. The width of the loads (16, 32 or 64 bytes) changes
 * nothing: 32.3, 31.0, 30.3. */
typedef struct pattern {
    uint32_t streams;
    bool ahead;
} pattern;
static const pattern patterns[] = { { 1, false }, { 1, true }, { 2, false }, { 2, true }, { 4, false } };

struct nj_probe {
    nj_arena *arena;
    unsigned char *buffer;
    uint64_t bytes, at;     /* where the next pass begins */
    uint64_t pass_bytes;    /* of the pass under way */
    const pattern *pattern; /* likewise */
    _Atomic uint64_t sink;  /* keeps the compiler from dropping what is only read */
};

typedef uint64_t lanes __attribute__((vector_size(64)));

/* Reads `streams` runs of `bytes` each, lying one behind the other. */
static inline __attribute__((always_inline)) uint64_t read_streams(const unsigned char *p, uint64_t bytes,
                                                                   uint32_t streams, bool ahead)
{
    lanes sum[4] = { 0 };
    for (uint64_t i = 0; i < bytes; i += BLOCK_BYTES)
        for (uint32_t s = 0; s < streams; s++) {
            const unsigned char *block = p + s * bytes + i;
            const lanes *v = (const lanes *)block;
            for (uint32_t k = 0; ahead && k < BLOCK_BYTES; k += 64) __builtin_prefetch(block + AHEAD_BYTES + k);
            for (int k = 0; k < 4; k++) sum[k] ^= v[k];
        }
    sum[0] ^= sum[1] ^ sum[2] ^ sum[3];
    return sum[0][0] ^ sum[0][1] ^ sum[0][2] ^ sum[0][3] ^ sum[0][4] ^ sum[0][5] ^ sum[0][6] ^ sum[0][7];
}

static void read_work(void *arg, uint32_t worker, uint32_t workers)
{
    nj_probe *p = arg;
    uint64_t begin, end, unit = STREAMS_MAX * BLOCK_BYTES;
    nj_share(p->pass_bytes / unit, worker, workers, &begin, &end);
    const unsigned char *from = p->buffer + p->at + begin * unit;
    uint64_t bytes = (end - begin) * unit;
    switch (p->pattern->streams) {
    case 1:
        p->sink += p->pattern->ahead ? read_streams(from, bytes, 1, true) : read_streams(from, bytes, 1, false);
        break;
    case 2:
        p->sink += p->pattern->ahead ? read_streams(from, bytes / 2, 2, true) : read_streams(from, bytes / 2, 2, false);
        break;
    default: p->sink += read_streams(from, bytes / 4, 4, false);
    }
}

double nj_probe_read(nj_probe *p, nj_pool *pool, uint64_t bytes)
{
    p->pass_bytes = bytes && bytes < p->bytes ? bytes : p->bytes;
    if (p->at + p->pass_bytes > p->bytes) p->at = 0;
    uint64_t begin = nj_now_ns();
    nj_pool_run(pool, read_work, p);
    uint64_t ns = nj_now_ns() - begin;
    p->at += p->pass_bytes;
    return (double)p->pass_bytes / (double)(ns ? ns : 1);
}

/* Every page is written, with values that differ, so that it is backed by memory of its own. */
static void fill_work(void *arg, uint32_t worker, uint32_t workers)
{
    nj_probe *p = arg;
    uint64_t begin, end;
    nj_share(p->bytes / sizeof(uint64_t), worker, workers, &begin, &end);
    uint64_t *words = (uint64_t *)(void *)p->buffer;
    for (uint64_t i = begin; i < end; i++) words[i] = i * UINT64_C(0x9E3779B97F4A7C15);
}

static void choose_pattern(nj_probe *p, nj_pool *pool)
{
    const pattern *best = NULL;
    double best_rate = 0;
    for (int trial = 0; trial < TRIALS; trial++)
        for (size_t i = 0; i < NJ_COUNT(patterns); i++) {
            p->pattern = &patterns[i];
            double rate = nj_probe_read(p, pool, p->bytes / 8);
            if (rate > best_rate) best_rate = rate, best = p->pattern;
        }
    p->pattern = best;
}

int nj_probe_new(nj_probe **out, nj_pool *pool, uint64_t bytes, nj_error *err)
{
    nj_machine m;
    *out = NULL;
    nj_machine_read(&m);
    if (bytes == 0) bytes = BYTES_DEFAULT;
    if (bytes > m.ram_available_bytes / 2) bytes = m.ram_available_bytes / 2;
    bytes = bytes / BYTES_MIN * BYTES_MIN;
    if (bytes == 0) {
        nj_fail(err, -ENOMEM, "only %" PRIu64 " MiB of memory are left: too little to measure how fast it is read",
                m.ram_available_bytes >> 20);
        return nj_remedy(err, "Close other programs.");
    }
    nj_probe *p = nj_new(nj_probe);
    if (!p) return nj_fail(err, -ENOMEM, "out of memory");
    p->bytes = bytes;
    int rc = nj_arena_new(&p->arena, bytes + AHEAD_BYTES, err);
    if (rc != 0) {
        nj_probe_free(p);
        return rc;
    }
    p->buffer = nj_arena_take(p->arena, bytes, 4096);
    nj_pool_run(pool, fill_work, p);
    choose_pattern(p, pool);
    *out = p;
    return 0;
}

uint64_t nj_probe_bytes(const nj_probe *p)
{
    return p->bytes;
}

void nj_probe_free(nj_probe *p)
{
    if (!p) return;
    nj_arena_free(p->arena);
    free(p);
}

/* ---- Peaks ---- */

const char *nj_peak_name(nj_peak kind)
{
    static const char *const names[NJ_PEAK_COUNT] = { "f32 avx2",  "int8 avx2", "f32 avx512",
                                                      "int8 vnni", "bf16 amx",  "int8 amx" };
    return kind < NJ_PEAK_COUNT ? names[kind] : "unknown";
}

#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>

/* Chains enough to hide the latency of an instruction (4-5 cycles, 2 per cycle), few enough for 16 registers. */
enum { CHAINS = 12, ROUNDS = 1000000, TILE_ROUNDS = 100000, TILE_CHAINS = 4 };

/* One loop over registers: STEP advances a chain. Twelve names, as an array would not stay in registers; what they hold
 * at the end is claimed to be used. */
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define KEEP(k)  __asm__ volatile("" : : "v"(chain##k));
#define PEAK_LOOP(NAME, TARGET, START, STEP)                                                                           \
    __attribute__((target(TARGET))) static void NAME(void *arg, uint32_t worker, uint32_t workers)                     \
    {                                                                                                                  \
        (void)arg, (void)worker, (void)workers;                                                                        \
        EACH(START)                                                                                                    \
        for (int i = 0; i < ROUNDS; i++) {                                                                             \
            EACH(STEP)                                                                                                 \
        }                                                                                                              \
        EACH(KEEP)                                                                                                     \
    }

#define F8_START(k)  __m256 chain##k = _mm256_set1_ps((float)k);
#define F8_STEP(k)   chain##k = _mm256_fmadd_ps(chain##k, _mm256_set1_ps(0.999f), _mm256_set1_ps(0.001f));
#define F16_START(k) __m512 chain##k = _mm512_set1_ps((float)k);
#define F16_STEP(k)  chain##k = _mm512_fmadd_ps(chain##k, _mm512_set1_ps(0.999f), _mm512_set1_ps(0.001f));
#define I8_START(k)  __m256i chain##k = _mm256_set1_epi32(k);
#define I8_PAIRS(k)  _mm256_maddubs_epi16(chain##k, _mm256_set1_epi8(3))
#define I8_STEP(k)   chain##k = _mm256_add_epi32(chain##k, _mm256_madd_epi16(I8_PAIRS(k), _mm256_set1_epi16(1)));
#define I16_START(k) __m512i chain##k = _mm512_set1_epi32(k);
#define I16_STEP(k)  chain##k = _mm512_dpbusd_epi32(chain##k, _mm512_set1_epi8(5), _mm512_set1_epi8(3));

PEAK_LOOP(peak_f32_avx2, "avx2,fma", F8_START, F8_STEP)
PEAK_LOOP(peak_f32_avx512, "avx512f", F16_START, F16_STEP)
PEAK_LOOP(peak_i8_avx2, "avx2", I8_START, I8_STEP)
PEAK_LOOP(peak_i8_vnni, "avx512f,avx512bw,avx512vnni", I16_START, I16_STEP)

/* Eight tiles of 16 rows of 64 bytes: four sums, two left and two right factors, so that no product waits for the one
 * before it. */
#define TILE_PEAK(NAME, TARGET, PRODUCT)                                                                               \
    __attribute__((target(TARGET))) static void NAME(void *arg, uint32_t worker, uint32_t workers)                     \
    {                                                                                                                  \
        static const struct {                                                                                          \
            uint8_t palette, start_row, reserved[14];                                                                  \
            uint16_t bytes[16];                                                                                        \
            uint8_t rows[16];                                                                                          \
        } config = { 1, 0, { 0 }, { 64, 64, 64, 64, 64, 64, 64, 64 }, { 16, 16, 16, 16, 16, 16, 16, 16 } };            \
        (void)arg, (void)worker, (void)workers;                                                                        \
        _tile_loadconfig(&config);                                                                                     \
        _tile_zero(0);                                                                                                 \
        _tile_zero(1);                                                                                                 \
        _tile_zero(2);                                                                                                 \
        _tile_zero(3);                                                                                                 \
        _tile_zero(4);                                                                                                 \
        _tile_zero(5);                                                                                                 \
        _tile_zero(6);                                                                                                 \
        _tile_zero(7);                                                                                                 \
        for (int i = 0; i < TILE_ROUNDS; i++) {                                                                        \
            PRODUCT(0, 4, 6);                                                                                          \
            PRODUCT(1, 4, 7);                                                                                          \
            PRODUCT(2, 5, 6);                                                                                          \
            PRODUCT(3, 5, 7);                                                                                          \
        }                                                                                                              \
        _tile_release();                                                                                               \
    }

TILE_PEAK(peak_i8_amx, "amx-tile,amx-int8", _tile_dpbssd)
TILE_PEAK(peak_bf16_amx, "amx-tile,amx-bf16", _tile_dpbf16ps)

/* AMX: the CPU's bits (leaf 7, EDX: BF16, TILE, INT8), and Linux' permission to use the tile registers, which it grants
 * only where it saves them (arch/x86/include/uapi/asm/prctl.h: ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA). */
static bool has_amx(void)
{
    unsigned a, b, c, d, bits = 1u << 22 | 1u << 24 | 1u << 25;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & bits) == bits && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}

static bool can_run(nj_peak kind)
{
    switch (kind) {
    case NJ_PEAK_F32_AVX2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case NJ_PEAK_I8_AVX2: return __builtin_cpu_supports("avx2");
    case NJ_PEAK_F32_AVX512: return __builtin_cpu_supports("avx512f");
    case NJ_PEAK_I8_VNNI: return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni");
    case NJ_PEAK_BF16_AMX:
    case NJ_PEAK_I8_AMX: return has_amx();
    default: return false;
    }
}

double nj_probe_peak(nj_pool *pool, nj_peak kind)
{
    /* Multiplications and additions of one worker. */
    static const struct {
        nj_work *work;
        double ops;
    } loops[NJ_PEAK_COUNT] = {
        [NJ_PEAK_F32_AVX2] = { peak_f32_avx2, 2.0 * 8 * CHAINS * ROUNDS },
        [NJ_PEAK_I8_AVX2] = { peak_i8_avx2, 2.0 * 32 * CHAINS * ROUNDS },
        [NJ_PEAK_F32_AVX512] = { peak_f32_avx512, 2.0 * 16 * CHAINS * ROUNDS },
        [NJ_PEAK_I8_VNNI] = { peak_i8_vnni, 2.0 * 64 * CHAINS * ROUNDS },
        [NJ_PEAK_BF16_AMX] = { peak_bf16_amx, 2.0 * 16 * 16 * 32 * TILE_CHAINS * TILE_ROUNDS },
        [NJ_PEAK_I8_AMX] = { peak_i8_amx, 2.0 * 16 * 16 * 64 * TILE_CHAINS * TILE_ROUNDS },
    };
    if (!can_run(kind)) return 0;
    uint64_t begin = nj_now_ns();
    nj_pool_run(pool, loops[kind].work, NULL);
    return loops[kind].ops * nj_pool_workers(pool) / (double)(nj_now_ns() - begin);
}
#else
double nj_probe_peak(nj_pool *pool, nj_peak kind)
{
    (void)pool, (void)kind;
    return 0;
}
#endif
