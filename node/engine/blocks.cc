// Products with weights in blocks of 32 codes, as an XLA custom call on a CPU. Defined in spec/07-bundles.md#weights-in-blocks:
// every result is the same, bit for bit, whatever the vectors' width, the number of threads and the other rows of x.
//
// Compiled by kernels.py for the machine it runs on, with -ffp-contract=fast: `a * b + c` is one fused operation here.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if !defined(__FMA__) && !defined(__ARM_FEATURE_FMA)
#error "This processor has no fused multiply-add."
#endif

#if !defined(WIDTH)  // floats in a vector; the tests set others
#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX2__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
#endif

namespace {

namespace ffi = xla::ffi;

constexpr int BLOCK = 32;
constexpr int LANES = 16;  // partial sums of one product: lane i adds up elements i, i + 16, i + 32, ...
constexpr int ROWS = WIDTH == 8 ? 2 : 4, COLUMNS = 4;  // of weights and of x, side by side: as many sums as registers hold
constexpr int64_t CHUNK = 32;  // rows of weights that a thread takes at a time: some 10 us of work

typedef float Floats __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(WIDTH * 4)));

// One weight matrix [out, in]: codes as bytes, or two to a byte, and each block's scale and least; or, of 32 bits, expanded.
struct Weights {
  const uint8_t* codes;
  const float* scales;
  int64_t out, in, bits;

  const uint8_t* codes_of(int64_t row) const { return codes + row * in * bits / 8; }
  const float* scales_of(int64_t row) const { return scales + row * in / BLOCK * 2; }
};

inline Ints widened(const uint8_t* codes) {
#if WIDTH == 16 && defined(__AVX512F__)
  return (Ints)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)codes));
#elif WIDTH == 8 && defined(__AVX2__)
  return (Ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)codes));
#else
  Ints ints;
  for (int i = 0; i < WIDTH; i++) ints[i] = codes[i];
  return ints;
#endif
}

// Weights of one block: `first` is 0 or 16, its half, plus a multiple of WIDTH.
template <int BITS>
inline Floats expanded(const uint8_t* codes, const float* scales, int first) {
  if constexpr (BITS == 32) return *(const Floats*)((const float*)codes + first);
  Ints ints = widened(codes + (BITS == 8 ? first : first % LANES));
  if (BITS == 4) ints = first < LANES ? ints & 15 : ints >> 4;
  return __builtin_convertvector(ints, Floats) * scales[0] + scales[1];
}

inline float sum(const float* lanes) {
  float sums[LANES];
  std::copy(lanes, lanes + LANES, sums);
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; i++) sums[i] += sums[i + half];
  return sums[0];
}

// y[c, row + r] for R rows of weights and C rows of x.
template <int BITS, int R, int C>
void tile(const Weights& weights, int64_t row, const float* x, float* y) {
  const int64_t in = weights.in, row_bytes = in * BITS / 8, row_scales = in / BLOCK * 2;
  float lanes[R][C][LANES];
  for (int part = 0; part < LANES; part += WIDTH) {
    Floats sums[R][C] = {};
    const uint8_t* codes = weights.codes_of(row);
    const float* scales = weights.scales_of(row);
    for (int64_t i = 0; i < in; i += BLOCK, codes += BLOCK * BITS / 8, scales += 2)
      for (int first = part; first < BLOCK; first += LANES) {
        Floats w[R];
        for (int r = 0; r < R; r++) w[r] = expanded<BITS>(codes + r * row_bytes, scales + r * row_scales, first);
        for (int c = 0; c < C; c++) {
          const Floats xs = *(const Floats*)(x + c * in + i + first);
          for (int r = 0; r < R; r++) sums[r][c] = w[r] * xs + sums[r][c];
        }
      }
    for (int r = 0; r < R; r++)
      for (int c = 0; c < C; c++) *(Floats*)(lanes[r][c] + part) = sums[r][c];
  }
  for (int c = 0; c < C; c++)
    for (int r = 0; r < R; r++) y[c * weights.out + row + r] = sum(lanes[r][c]);
}

template <int BITS, int R>
void tiles(const Weights& weights, int64_t row, const float* x, int64_t n, float* y) {
  int64_t c = 0;
  for (; c + COLUMNS <= n; c += COLUMNS) tile<BITS, R, COLUMNS>(weights, row, x + c * weights.in, y + c * weights.out);
  for (; c < n; c++) tile<BITS, R, 1>(weights, row, x + c * weights.in, y + c * weights.out);
}

template <int BITS>
void expand_rows(const Weights& weights, int64_t row, int64_t end, float* w) {
  const uint8_t* codes = weights.codes_of(row);
  const float* scales = weights.scales_of(row);
  for (int64_t left = (end - row) * weights.in; left; left -= BLOCK, w += BLOCK, codes += BLOCK * BITS / 8, scales += 2)
    for (int first = 0; first < BLOCK; first += WIDTH) *(Floats*)(w + first) = expanded<BITS>(codes, scales, first);
}

template <int BITS>
void product_rows(const Weights& weights, int64_t row, int64_t end, const float* x, int64_t n, float* y) {
  if (n > COLUMNS) {  // many rows of x read the same weights: they are expanded once, into the cache
    static thread_local std::vector<float> panel;
    panel.resize(ROWS * weights.in);
    const Weights dense{(const uint8_t*)panel.data(), weights.scales, weights.out, weights.in, 32};
    for (; row + ROWS <= end; row += ROWS) {
      expand_rows<BITS>(weights, row, row + ROWS, panel.data());
      tiles<32, ROWS>(dense, 0, x, n, y + row);
    }
  }
  for (; row + ROWS <= end; row += ROWS) tiles<BITS, ROWS>(weights, row, x, n, y);
  for (; row < end; row++) tiles<BITS, 1>(weights, row, x, n, y);
}

// Every chunk of the rows has been given to `work(begin, end)`, by this thread and those of the pool that were free.
//
// Nobody waits for a thread that has not begun: one that comes late finds nothing left to take, and only then reads `Shared`,
// which it owns a part of. So this cannot lock up, however many threads of the pool wait here themselves.
template <typename Work>
void in_chunks(ffi::ThreadPool& pool, int64_t rows, Work work) {
  struct Shared {
    std::atomic<int64_t> taken{0}, done{0};
  };
  const int64_t chunks = (rows + CHUNK - 1) / CHUNK;
  const auto shared = std::make_shared<Shared>();
  const auto take = [=] {
    for (int64_t chunk; (chunk = shared->taken.fetch_add(1)) < chunks; shared->done.fetch_add(1))
      work(chunk * CHUNK, std::min(rows, (chunk + 1) * CHUNK));
  };
  for (int64_t helper = 1; helper < std::min(pool.num_threads(), chunks); helper++) pool.Schedule([take] { take(); });
  take();
  while (shared->done.load() < chunks) std::this_thread::yield();
}

// `weights` if the arrays fit together. Programs come from strangers: nothing beyond this may be read or written.
bool read(ffi::BufferR2<ffi::U8> codes, ffi::BufferR3<ffi::F32> scales, int64_t in, Weights* weights) {
  const auto packed = codes.dimensions(), blocks = scales.dimensions();
  *weights = {codes.typed_data(), scales.typed_data(), packed[0], in, packed[1] == in ? 8 : 4};
  return in > 0 && in % BLOCK == 0 && (packed[1] == in || packed[1] * 2 == in) && blocks[0] == packed[0] &&
         blocks[1] == in / BLOCK && blocks[2] == 2;
}

ffi::Error product(ffi::ThreadPool pool, ffi::BufferR2<ffi::F32> x, ffi::BufferR2<ffi::U8> codes,
                   ffi::BufferR3<ffi::F32> scales, ffi::ResultBufferR2<ffi::F32> y) {
  Weights weights;
  const int64_t n = x.dimensions()[0];
  if (!read(codes, scales, x.dimensions()[1], &weights) || y->dimensions()[0] != n || y->dimensions()[1] != weights.out)
    return ffi::Error::InvalidArgument("The shapes of a product in blocks do not fit together.");
  const float* rows = x.typed_data();
  float* results = y->typed_data();
  in_chunks(pool, weights.out, [=](int64_t begin, int64_t end) {
    if (weights.bits == 4) product_rows<4>(weights, begin, end, rows, n, results);
    else product_rows<8>(weights, begin, end, rows, n, results);
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(fallow_block_product_1, product,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::BufferR2<ffi::F32>>()
                                  .Arg<ffi::BufferR2<ffi::U8>>()
                                  .Arg<ffi::BufferR3<ffi::F32>>()
                                  .Ret<ffi::BufferR2<ffi::F32>>());
