// Products of a matrix with few vectors, where reading the matrix is what takes the time.
//
// A matrix is float32, bfloat16, or quantised in groups of 32 along its columns with one float16 scale each:
//   8 bits: value = scale * q, q in -127..127, one byte each;
//   4 bits: value = scale * (u - 8), u in 0..15; byte i of a group holds element i low and element i + 16 high.
// Vectors are float32; for a quantised matrix they are quantised too, to 8 bits per group of 32 (as llama.cpp does), so
// that products of integers are exact. Sums are float32. A vector's results do not depend on how many others there are:
// up to 8 are multiplied at once, each with sums of its own in one order.

#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "numbers.h"

namespace {

enum Kind : int64_t { FLOAT32, BFLOAT16, EIGHT_BITS, FOUR_BITS };

// As model/kernels/products.py lays it out: five 64-bit words. No data: the model has no such matrix.
struct Matrix {
  int64_t kind, rows, columns;
  const void* data;
  const uint16_t* scales;

  bool quantised() const { return kind >= EIGHT_BITS; }
  int64_t row_bytes() const {
    return kind == FLOAT32 ? 4 * columns : kind == BFLOAT16 ? 2 * columns : kind == EIGHT_BITS ? columns : columns / 2;
  }
  // The part of a stack of matrices that begins at a row.
  Matrix from(int64_t row, int64_t count) const {
    const auto* begin = static_cast<const char*>(data) + row * row_bytes();
    return {kind, count, columns, begin, scales ? scales + row * (columns / 32) : nullptr};
  }
};

constexpr int64_t GROUP = 32, STRIP = 128;  // columns with one scale; columns that are multiplied at once
constexpr int AT_ONCE = 8;                  // vectors
constexpr int64_t AHEAD = 2048;  // bytes that are asked for before they are needed: processors stop at every page
constexpr int64_t TILE = 16;                // rows that stay in the cache while all vectors meet them

inline int64_t strips(int64_t columns) { return (columns + STRIP - 1) / STRIP; }

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define CODEWEFT_VNNI 1
#endif

// A strip of a vector in 8 bits, and of each of its groups the scale, and the sum of the bytes times the scale: what the
// offset of unsigned weights adds to a product.
struct Strip {
  int8_t bytes[STRIP];
  float scales[4];
  float sums[4];
};

// A vector as products want it.
struct Vector {
  const float* values;
  const Strip* strips;
};

inline void quantise_group(const float* x, int64_t size, int64_t kind, int group, Strip& strip) {
  float largest = 0.0f;
  for (int64_t i = 0; i < size; i++) largest = std::max(largest, std::fabs(x[i]));
  const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f, scale = largest / 127.0f;
  int8_t rounded[GROUP] = {};
  int32_t sum = 0;
  for (int64_t i = 0; i < size; i++) {
    rounded[i] = static_cast<int8_t>(std::lrintf(x[i] * inverse));
    sum += rounded[i];
  }
  strip.scales[group] = scale;
  strip.sums[group] = scale * static_cast<float>(sum);
#if CODEWEFT_VNNI
  if (kind == FOUR_BITS) {  // first halves of the four groups, then their second halves, as the weights lie
    std::memcpy(strip.bytes + 16 * group, rounded, 16);
    std::memcpy(strip.bytes + 64 + 16 * group, rounded + 16, 16);
    return;
  }
#endif
  std::memcpy(strip.bytes + GROUP * group, rounded, GROUP);
}

// Room for vectors of one width; `quantise` where a matrix asks for it.
class Vectors {
 public:
  void resize(int64_t count, int64_t columns, bool quantised) {
    columns_ = columns;
    const int64_t each = strips(columns);
    if (static_cast<int64_t>(values_.size()) < count * columns) values_.resize(count * columns);
    if (quantised && static_cast<int64_t>(strips_.size()) < count * each) strips_.resize(count * each);
    list_.resize(count);
    for (int64_t m = 0; m < count; m++)
      list_[m] = {values_.data() + m * columns, quantised ? strips_.data() + m * each : nullptr};
  }
  float* values(int64_t m) { return values_.data() + m * columns_; }
  const Vector* list() const { return list_.data(); }
  const Vector& operator[](int64_t m) const { return list_[m]; }

  // Fill vector m's copy in 8 bits for a matrix of this kind.
  void quantise(int64_t m, int64_t kind) {
    const float* x = values(m);
    Strip* mine = strips_.data() + m * strips(columns_);
    for (int64_t g = 0; g < 4 * strips(columns_); g++) {
      const int64_t begin = g * GROUP, size = std::max<int64_t>(0, std::min(GROUP, columns_ - begin));
      quantise_group(x + begin, size, kind, static_cast<int>(g % 4), mine[g / 4]);
    }
  }

 private:
  int64_t columns_ = 0;
  std::vector<float> values_;
  std::vector<Strip> strips_;
  std::vector<Vector> list_;
};

// ---------------------------------------------------------------- R rows of a matrix with M vectors

typedef float floats __attribute__((vector_size(64), aligned(4)));
typedef uint32_t words __attribute__((vector_size(64)));
typedef uint16_t halves __attribute__((vector_size(32), aligned(2)));

// a * b + c, rounded once where the processor can: told, not left to the compiler, which decides anew for each M
inline float multiply_add(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

inline floats load(const float* place) { return *reinterpret_cast<const floats*>(place); }

inline floats load(const bfloat16* place) {
  const words wide = __builtin_convertvector(*reinterpret_cast<const halves*>(place), words) << 16;
  return reinterpret_cast<const floats&>(wide);
}

inline float total(const floats& sums) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(_mm512_loadu_ps(&sums));
#endif
  float parts[16];
  std::memcpy(parts, &sums, 64);
  for (int width = 8; width; width /= 2)
    for (int i = 0; i < width; i++) parts[i] += parts[i + width];
  return parts[0];
}

#if defined(__AVX512F__)

// Eight totals at once. Each sum is added up in the order of `total`: lanes 8 apart, then 4, 2 and 1.
inline void eight_totals(const floats* sums, float* result) {
  __m512 eights[4], fours[2];
  for (int i = 0; i < 4; i++) {
    const __m512 left = _mm512_loadu_ps(sums + 2 * i), right = _mm512_loadu_ps(sums + 2 * i + 1);
    eights[i] = _mm512_add_ps(_mm512_shuffle_f32x4(left, right, 0x44), _mm512_shuffle_f32x4(left, right, 0xEE));
  }
  for (int i = 0; i < 2; i++) {
    const __m512 left = eights[2 * i], right = eights[2 * i + 1];
    fours[i] = _mm512_add_ps(_mm512_shuffle_f32x4(left, right, 0x88), _mm512_shuffle_f32x4(left, right, 0xDD));
  }
  const __m512 low = _mm512_shuffle_ps(fours[0], fours[1], 0x44);
  const __m512 pairs = _mm512_add_ps(low, _mm512_shuffle_ps(fours[0], fours[1], 0xEE));
  const __m512 all = _mm512_add_ps(pairs, _mm512_permute_ps(pairs, 0xB1));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
  _mm256_storeu_ps(result, _mm512_castps512_ps256(_mm512_permutexvar_ps(order, all)));
}

#endif

// Every total of R * M sums.
template <int R, int M>
inline void totals(const floats (*sums)[M], float (*result)[M]) {
  const floats* all = &sums[0][0];
  float* places = &result[0][0];
  int i = 0;
#if defined(__AVX512F__)
  for (; i + 8 <= R * M; i += 8) eight_totals(all + i, places + i);
  if (R * M - i >= 3) {
    floats rest[8] = {};
    float found[8];
    for (int j = i; j < R * M; j++) rest[j - i] = all[j];
    eight_totals(rest, found);
    for (; i < R * M; i++) places[i] = found[i % 8];
  }
#endif
  for (; i < R * M; i++) places[i] = total(all[i]);
}

template <int R, int M, class T>
inline void dot(const T* rows, int64_t columns, const Vector* x, float (*result)[M]) {
  floats sums[R][M];
  for (int r = 0; r < R; r++)
    for (int m = 0; m < M; m++) sums[r][m] = floats{};
  int64_t k = 0;
  for (; k + 16 <= columns; k += 16) {
    floats weights[R];
    for (int r = 0; r < R; r++) {
      __builtin_prefetch(reinterpret_cast<const char*>(rows + r * columns + k) + AHEAD);
      weights[r] = load(rows + r * columns + k);
    }
    for (int m = 0; m < M; m++) {
      const floats values = load(x[m].values + k);
      for (int r = 0; r < R; r++) sums[r][m] += weights[r] * values;
    }
  }
  totals<R, M>(sums, result);
  if (k == columns) return;
  for (int r = 0; r < R; r++)
    for (int m = 0; m < M; m++) {
      float rest = 0.0f;
      for (int64_t i = k; i < columns; i++) rest = multiply_add(read(rows[r * columns + i]), x[m].values[i], rest);
      result[r][m] += rest;
    }
}

inline float half_to_float(uint16_t bits) {
#if defined(__F16C__)
  return _cvtsh_ss(bits);
#else
  const int exponent = bits >> 10 & 31;
  const float fraction = static_cast<float>(bits & 1023);
  const float value = exponent == 0    ? std::ldexp(fraction, -24)
                      : exponent == 31 ? (fraction != 0 ? NAN : INFINITY)
                                       : std::ldexp(fraction + 1024.0f, exponent - 25);
  return bits & 0x8000 ? -value : value;
#endif
}

#if CODEWEFT_VNNI

// Scales of up to four groups, zero behind the last.
inline __m128 group_scales(const uint16_t* scales, int64_t groups) {
  uint64_t bits = 0;
  if (groups >= 4) std::memcpy(&bits, scales, 8);
  else
    for (int64_t g = 0; g < groups; g++) bits |= static_cast<uint64_t>(scales[g]) << (16 * g);
  return _mm_cvtph_ps(_mm_cvtsi64_si128(static_cast<int64_t>(bits)));
}

inline float total(__m128 sums) {
  float parts[4];
  _mm_storeu_ps(parts, sums);
  return (parts[0] + parts[2]) + (parts[1] + parts[3]);
}

// Products of whole numbers become float sums: each group's by its two scales, less what the weights' offset adds.
template <int R, int M>
inline void finish(const floats (*sums)[M], const __m128 (*offsets)[M], float offset, float (*result)[M]) {
  totals<R, M>(sums, result);
  for (int r = 0; r < R; r++)
    for (int m = 0; m < M; m++) result[r][m] = multiply_add(-offset, total(offsets[r][m]), result[r][m]);
}

template <int R, int M>
inline void dot4(const uint8_t* rows, const uint16_t* scales, int64_t columns, const Vector* x, float (*result)[M]) {
  const __m512i low = _mm512_set1_epi8(15), zero = _mm512_setzero_si512();
  const __m512i spread = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  floats sums[R][M];
  __m128 offsets[R][M];
  for (int r = 0; r < R; r++)
    for (int m = 0; m < M; m++) sums[r][m] = floats{}, offsets[r][m] = _mm_setzero_ps();
  for (int64_t k = 0; k < columns; k += STRIP) {
    const int64_t groups = std::min<int64_t>(4, (columns - k) / GROUP);
    const __mmask64 mask = groups == 4 ? ~0ull : (1ull << (16 * groups)) - 1;
    __m512i first[R], second[R];
    __m128 scale[R];
    for (int r = 0; r < R; r++) {
      __builtin_prefetch(rows + (r * columns + k) / 2 + AHEAD);
      const __m512i packed = _mm512_maskz_loadu_epi8(mask, rows + (r * columns + k) / 2);
      first[r] = _mm512_and_si512(packed, low);
      second[r] = _mm512_and_si512(_mm512_srli_epi16(packed, 4), low);
      scale[r] = group_scales(scales + (r * columns + k) / GROUP, groups);
    }
    for (int m = 0; m < M; m++) {
      const Strip& strip = x[m].strips[k / STRIP];
      const __m512i front = _mm512_loadu_si512(strip.bytes), back = _mm512_loadu_si512(strip.bytes + 64);
      const __m128 factor = _mm_loadu_ps(strip.scales), sum = _mm_loadu_ps(strip.sums);
      for (int r = 0; r < R; r++) {
        const __m512i products = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, first[r], front), second[r], back);
        const __m512 both = _mm512_castps128_ps512(_mm_mul_ps(scale[r], factor));
        sums[r][m] += _mm512_cvtepi32_ps(products) * _mm512_permutexvar_ps(spread, both);
        offsets[r][m] = _mm_fmadd_ps(scale[r], sum, offsets[r][m]);
      }
    }
  }
  finish<R, M>(sums, offsets, 8.0f, result);
}

template <int R, int M>
inline void dot8(const int8_t* rows, const uint16_t* scales, int64_t columns, const Vector* x, float (*result)[M]) {
  const __m512i flip = _mm512_set1_epi8(-128), zero = _mm512_setzero_si512();
  const __m512i ahead = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  const __m512i behind = _mm512_setr_epi32(2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
  floats sums[R][M];
  __m128 offsets[R][M];
  for (int r = 0; r < R; r++)
    for (int m = 0; m < M; m++) sums[r][m] = floats{}, offsets[r][m] = _mm_setzero_ps();
  for (int64_t k = 0; k < columns; k += STRIP) {
    const int64_t groups = std::min<int64_t>(4, (columns - k) / GROUP);
    const __mmask64 left = groups >= 2 ? ~0ull : 0xffffffffull;
    const __mmask64 right = groups == 4 ? ~0ull : groups == 3 ? 0xffffffffull : 0;
    __m512i first[R], second[R];
    __m128 scale[R];
    for (int r = 0; r < R; r++) {
      const int8_t* row = rows + r * columns + k;
      __builtin_prefetch(row + AHEAD);
      __builtin_prefetch(row + 64 + AHEAD);
      first[r] = _mm512_xor_si512(_mm512_maskz_loadu_epi8(left, row), flip);
      second[r] = _mm512_xor_si512(_mm512_maskz_loadu_epi8(right, row + 64), flip);
      scale[r] = group_scales(scales + (r * columns + k) / GROUP, groups);
    }
    for (int m = 0; m < M; m++) {
      const Strip& strip = x[m].strips[k / STRIP];
      const __m512i front = _mm512_loadu_si512(strip.bytes), back = _mm512_loadu_si512(strip.bytes + 64);
      const __m128 factor = _mm_loadu_ps(strip.scales), sum = _mm_loadu_ps(strip.sums);
      for (int r = 0; r < R; r++) {
        const __m512 one = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(zero, first[r], front));
        const __m512 two = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(zero, second[r], back));
        const __m512 both = _mm512_castps128_ps512(_mm_mul_ps(scale[r], factor));
        sums[r][m] += one * _mm512_permutexvar_ps(ahead, both);
        sums[r][m] += two * _mm512_permutexvar_ps(behind, both);
        offsets[r][m] = _mm_fmadd_ps(scale[r], sum, offsets[r][m]);
      }
    }
  }
  finish<R, M>(sums, offsets, 128.0f, result);
}

#else

// Sums of 32 products of a group, as a float in each lane or as one.
#if defined(__AVX2__) && defined(__FMA__)

typedef __m256 Sums;
inline Sums nothing() { return _mm256_setzero_ps(); }
inline float total(Sums sums) {
  float parts[8];
  _mm256_storeu_ps(parts, sums);
  return ((parts[0] + parts[4]) + (parts[2] + parts[6])) + ((parts[1] + parts[5]) + (parts[3] + parts[7]));
}
inline Sums add(Sums sums, __m256i pairs, float scale) {
  const __m256i products = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), _mm256_set1_ps(scale), sums);
}
inline Sums group4(Sums sums, const uint8_t* packed, const int8_t* bytes, float scale) {
  const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed));
  const __m256i weights = _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(both, 4), both), _mm256_set1_epi8(15));
  return add(sums, _mm256_maddubs_epi16(weights, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes))), scale);
}
inline Sums group8(Sums sums, const int8_t* row, const int8_t* bytes, float scale) {
  const __m256i weights = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row));
  const __m256i signed_bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
  // sizes times signed bytes: two products stay below 2^15, as no byte is -128
  const __m256i size = _mm256_sign_epi8(weights, weights), turned = _mm256_sign_epi8(signed_bytes, weights);
  return add(sums, _mm256_maddubs_epi16(size, turned), scale);
}

#else

typedef float Sums;
inline Sums nothing() { return 0.0f; }
inline float total(Sums sums) { return sums; }
inline Sums group4(Sums sums, const uint8_t* packed, const int8_t* bytes, float scale) {
  int32_t sum = 0;
  for (int i = 0; i < 16; i++) sum += (packed[i] & 15) * bytes[i] + (packed[i] >> 4) * bytes[i + 16];
  return sums + scale * static_cast<float>(sum);
}
inline Sums group8(Sums sums, const int8_t* row, const int8_t* bytes, float scale) {
  int32_t sum = 0;
  for (int i = 0; i < GROUP; i++) sum += row[i] * bytes[i];
  return sums + scale * static_cast<float>(sum);
}

#endif

template <int R, int M>
inline void dot4(const uint8_t* rows, const uint16_t* scales, int64_t columns, const Vector* x, float (*result)[M]) {
  for (int r = 0; r < R; r++) {
    Sums sums[M];
    float offsets[M] = {};
    for (int m = 0; m < M; m++) sums[m] = nothing();
    for (int64_t g = 0; g < columns / GROUP; g++) {
      const float scale = half_to_float(scales[r * (columns / GROUP) + g]);
      const uint8_t* packed = rows + (r * columns + g * GROUP) / 2;
      for (int m = 0; m < M; m++) {
        const Strip& strip = x[m].strips[g / 4];
        sums[m] = group4(sums[m], packed, strip.bytes + g % 4 * GROUP, scale * strip.scales[g % 4]);
        offsets[m] += scale * 8.0f * strip.sums[g % 4];
      }
    }
    for (int m = 0; m < M; m++) result[r][m] = total(sums[m]) - offsets[m];
  }
}

template <int R, int M>
inline void dot8(const int8_t* rows, const uint16_t* scales, int64_t columns, const Vector* x, float (*result)[M]) {
  for (int r = 0; r < R; r++) {
    Sums sums[M];
    for (int m = 0; m < M; m++) sums[m] = nothing();
    for (int64_t g = 0; g < columns / GROUP; g++) {
      const float scale = half_to_float(scales[r * (columns / GROUP) + g]);
      for (int m = 0; m < M; m++) {
        const Strip& strip = x[m].strips[g / 4];
        const int8_t* bytes = strip.bytes + g % 4 * GROUP;
        sums[m] = group8(sums[m], rows + r * columns + g * GROUP, bytes, scale * strip.scales[g % 4]);
      }
    }
    for (int m = 0; m < M; m++) result[r][m] = total(sums[m]);
  }
}

#endif

// ---------------------------------------------------------------- rows of a matrix with any number of vectors

template <int M, class Work>
inline void with_count(int count, Work&& work) {
  if constexpr (M > 1) {
    if (count < M) return with_count<M - 1>(count, work);
  }
  work(std::integral_constant<int, M>{});
}

template <int R, int M>
inline void rows_of(const Matrix& matrix, int64_t n, const Vector* x, float (*result)[M]) {
  const char* rows = static_cast<const char*>(matrix.data) + n * matrix.row_bytes();
  const uint16_t* scales = matrix.scales + n * (matrix.columns / GROUP);
  const int64_t columns = matrix.columns;
  if (matrix.kind == FLOAT32) dot<R, M>(reinterpret_cast<const float*>(rows), columns, x, result);
  else if (matrix.kind == BFLOAT16) dot<R, M>(reinterpret_cast<const bfloat16*>(rows), columns, x, result);
  else if (matrix.kind == EIGHT_BITS) dot8<R, M>(reinterpret_cast<const int8_t*>(rows), scales, columns, x, result);
  else dot4<R, M>(reinterpret_cast<const uint8_t*>(rows), scales, columns, x, result);
}

// Hands every result to `give(vector, row, value)`, for the rows from `begin` to `end`.
template <class Give>
void multiply(const Matrix& matrix, int64_t begin, int64_t end, const Vector* x, int64_t count, Give&& give) {
  for (int64_t tile = begin; tile < end; tile += TILE) {
    const int64_t tile_end = std::min(tile + TILE, end);
    for (int64_t first = 0; first < count; first += AT_ONCE) {
      with_count<AT_ONCE>(static_cast<int>(std::min<int64_t>(AT_ONCE, count - first)), [&](auto number) {
        constexpr int M = decltype(number)::value, R = M <= 2 ? 1 : 2;  // one row at a time reads memory in order; two share vectors
        float result[R][M];
        int64_t n = tile;
        for (; n + R <= tile_end; n += R) {
          rows_of<R, M>(matrix, n, x + first, result);
          for (int r = 0; r < R; r++)
            for (int m = 0; m < M; m++) give(first + m, n + r, result[r][m]);
        }
        for (; n < tile_end; n++) {
          rows_of<1, M>(matrix, n, x + first, result);
          for (int m = 0; m < M; m++) give(first + m, n, result[0][m]);
        }
      });
    }
  }
}

}  // namespace
