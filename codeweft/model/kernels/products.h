// Products of a matrix with few vectors, where reading the matrix is what takes the time.
//
// A matrix is float32, bfloat16, or quantised in groups of 32 along its columns with one float16 scale each:
//   8 bits: value = scale * q, q in -127..127, one byte each;
//   4 bits: value = scale * (u - 8), u in 0..15; byte i of a group holds element i low and element i + 16 high.
// Vectors are float32; for a quantised matrix they are quantised too, to 8 bits per group of 32 (as llama.cpp does), so
// that products of integers are exact. Sums are float32. A vector's results do not depend on how many others there are:
// a few are multiplied at once, each with sums of its own in one order.

#pragma once

#include <algorithm>
#include <new>
#include <type_traits>
#include <vector>

#if defined(__x86_64__)
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

constexpr int64_t GROUP = 32;                             // columns with one scale
constexpr int64_t STRIP = LANES > 4 ? 4 * GROUP : GROUP;  // columns of which the first halves of groups lie together
constexpr int64_t SPAN = LANES * GROUP;                   // columns whose scales fill a register
constexpr int AT_ONCE = LANES == 16 ? 8 : 4;              // vectors: as many as there are registers for sums
constexpr int64_t AHEAD = 2048;  // bytes that are asked for before they are needed: processors stop at every page
constexpr int64_t TILE = 16;     // rows that stay in the cache while all vectors meet them

// What makes a weight an unsigned byte, where products want one side to be.
inline float offset_of(int64_t kind) {
  if (kind == FOUR_BITS) return 8.0f;
#if defined(__AVX512VNNI__)
  return 128.0f;
#else
  return 0.0f;
#endif
}

// A vector as products want it. In 8 bits, for 4-bit weights, the first halves of a strip's groups come before their
// second halves, as a register of weights gives them. Of each group there are the scale, and what takes the weights'
// offset out of a product again; both are zero behind the last group.
struct Vector {
  const float* values;
  const int8_t* bytes;
  const float *scales, *offsets;
};

// Memory that begins where lines of the cache do: a register's bytes in two lines take two loads.
template <class T>
struct Aligned {
  using value_type = T;
  T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t(64))); }
  void deallocate(T* place, size_t) { ::operator delete(place, std::align_val_t(64)); }
  bool operator==(const Aligned&) const { return true; }
  bool operator!=(const Aligned&) const { return false; }
};

// The largest absolute value. Sizes are compared as whole numbers, which is done in registers, and in which a NaN is
// above all others and so stays visible.
inline float largest_size(const float* x, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; i++) {
    uint32_t bits;
    std::memcpy(&bits, x + i, 4);
    largest = std::max(largest, bits & 0x7fffffffu);
  }
  float size;
  std::memcpy(&size, &largest, 4);
  return size;
}

// Room for vectors of one width; `quantise` where a matrix asks for it.
class Vectors {
 public:
  void resize(int64_t count, int64_t columns, bool quantised) {
    columns_ = columns;
    groups_ = (columns + SPAN - 1) / SPAN * LANES;
    if (static_cast<int64_t>(values_.size()) < count * columns) values_.resize(count * columns);
    if (quantised && static_cast<int64_t>(scales_.size()) < count * groups_) {
      bytes_.resize(count * groups_ * GROUP);
      scales_.resize(count * groups_);
      offsets_.resize(count * groups_);
    }
    list_.resize(count);
    for (int64_t m = 0; m < count; m++) {
      list_[m] = {values_.data() + m * columns, nullptr, nullptr, nullptr};
      if (!quantised) continue;
      const int64_t first = m * groups_;
      list_[m] = {values(m), bytes_.data() + first * GROUP, scales_.data() + first, offsets_.data() + first};
    }
  }
  float* values(int64_t m) { return values_.data() + m * columns_; }
  const Vector* list() const { return list_.data(); }
  const Vector& operator[](int64_t m) const { return list_[m]; }

  // Fill vector m's copy in 8 bits for a matrix of this kind.
  void quantise(int64_t m, int64_t kind) {
    for (int64_t g = 0; g < groups_; g++) quantise_group(m, g, kind);
  }

 private:
  void quantise_group(int64_t m, int64_t g, int64_t kind) {
    const int64_t size = std::max<int64_t>(0, std::min(GROUP, columns_ - g * GROUP));
    const float* x = values(m) + g * GROUP;
    const float largest = largest_size(x, size);
    const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f, scale = largest / 127.0f;
    int8_t rounded[GROUP] = {};
    int32_t sum = 0;
    for (int64_t i = 0; i < size; i++) {
      rounded[i] = static_cast<int8_t>(std::lrintf(x[i] * inverse));
      sum += rounded[i];
    }
    const int64_t number = m * groups_ + g;
    scales_[number] = scale;
    offsets_[number] = -offset_of(kind) * scale * static_cast<float>(sum);
    int8_t* bytes = bytes_.data() + m * groups_ * GROUP;
    if (kind == FOUR_BITS) {
      constexpr int64_t EACH = STRIP / GROUP;
      int8_t* first_half = bytes + g / EACH * STRIP + g % EACH * (GROUP / 2);
      std::memcpy(first_half, rounded, GROUP / 2);
      std::memcpy(first_half + STRIP / 2, rounded + GROUP / 2, GROUP / 2);
    } else {
      std::memcpy(bytes + g * GROUP, rounded, GROUP);
    }
  }

  int64_t columns_ = 0, groups_ = 0;
  std::vector<float, Aligned<float>> values_, scales_, offsets_;
  std::vector<int8_t, Aligned<int8_t>> bytes_;
  std::vector<Vector> list_;
};

// ---------------------------------------------------------------- R rows of a matrix with M vectors

typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2)));

// a * b + c, rounded once where the processor can: told, not left to the compiler, which decides anew for each M
inline float multiply_add(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

inline floats multiply_add(floats a, floats b, floats c) {
#if CODEWEFT_AVX512
  return _mm512_fmadd_ps(a, b, c);
#elif CODEWEFT_AVX2
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

inline floats load(const float* place) { return *reinterpret_cast<const floats*>(place); }

inline floats load(const bfloat16* place) {
  return reinterpret_cast<floats>(__builtin_convertvector(*reinterpret_cast<const halves*>(place), words) << 16);
}

// Half of the lanes is added to the other half, until one is left.
inline float total(const floats& sums) {
#if CODEWEFT_AVX512
  return _mm512_reduce_add_ps(sums);
#elif CODEWEFT_AVX2
  const __m128 fours = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
  const __m128 twos = _mm_add_ps(fours, _mm_movehl_ps(fours, fours));
  return _mm_cvtss_f32(_mm_add_ss(twos, _mm_movehdup_ps(twos)));
#else
  return (sums[0] + sums[2]) + (sums[1] + sums[3]);
#endif
}

#if CODEWEFT_AVX512

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
#if CODEWEFT_AVX512
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
  constexpr int CHAINS = LANES == 16 ? 1 : 2;  // a short register is added to before the last sum of its lanes is there
  floats sums[CHAINS][R][M] = {};
  const auto add = [&](int64_t k, floats (*chain)[M]) {
    floats weights[R];
    for (int r = 0; r < R; r++) weights[r] = load(rows + r * columns + k);
    for (int m = 0; m < M; m++) {
      const floats values = load(x[m].values + k);
      for (int r = 0; r < R; r++) chain[r][m] = multiply_add(weights[r], values, chain[r][m]);
    }
  };
  int64_t k = 0;
  for (; k + CHAINS * LANES <= columns; k += CHAINS * LANES) {
    for (int r = 0; r < R; r++) __builtin_prefetch(reinterpret_cast<const char*>(rows + r * columns + k) + AHEAD);
    for (int c = 0; c < CHAINS; c++) add(k + c * LANES, sums[c]);
  }
  for (; k + LANES <= columns; k += LANES) add(k, sums[0]);
  for (int c = 1; c < CHAINS; c++)
    for (int r = 0; r < R; r++)
      for (int m = 0; m < M; m++) sums[0][r][m] += sums[c][r][m];
  totals<R, M>(sums[0], result);
  for (; k < columns; k++)
    for (int r = 0; r < R; r++)
      for (int m = 0; m < M; m++)
        result[r][m] = multiply_add(read(rows[r * columns + k]), x[m].values[k], result[r][m]);
}

inline float half_to_float(uint16_t bits) {
#if defined(__F16C__)
  return _cvtsh_ss(bits);
#else
  const bool finite = (bits & 0x7c00) != 0x7c00;
  const uint32_t word = (bits & 0x7fffu) << 13 | (finite ? 0u : 0x7f800000u);
  float value;
  std::memcpy(&value, &word, 4);
  if (finite) value *= 0x1p112f;  // the exponents' zeros are so far apart
  return bits & 0x8000 ? -value : value;
#endif
}

// What a processor has to multiply registers of bytes; sums of four products, or of eight of 4-bit weights, are left in
// each lane. `scaled` adds them, times those scales that `places` names, to other sums.
#if CODEWEFT_AVX512

typedef __m512i Register;
typedef int32_t Places __attribute__((vector_size(64)));
constexpr Places NUMBERS = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// Bytes of a register, zero behind the last.
inline Register load_bytes(const void* bytes, int64_t count) {
  return _mm512_maskz_loadu_epi8(_bzhi_u64(~0ull, static_cast<uint32_t>(std::min<int64_t>(64, count))), bytes);
}
inline Register load_whole(const void* bytes) { return _mm512_loadu_si512(bytes); }
inline floats load_scales(const uint16_t* scales, int64_t count) {
  const uint32_t there = _bzhi_u32(0xffff, static_cast<uint32_t>(std::min<int64_t>(16, count)));
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(static_cast<__mmask16>(there), scales));
}
inline Register first_halves(Register packed) { return _mm512_and_si512(packed, _mm512_set1_epi8(15)); }
inline Register second_halves(Register packed) { return first_halves(_mm512_srli_epi16(packed, 4)); }
#if defined(__AVX512VNNI__)
inline Register products4(Register left, Register front, Register right, Register back) {
  return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), left, front), right, back);
}
inline Register products8(Register weights, Register bytes) {
  const Register flipped = _mm512_xor_si512(weights, _mm512_set1_epi8(-128));
  return _mm512_dpbusd_epi32(_mm512_setzero_si512(), flipped, bytes);
}
#else
inline Register sums_of_pairs(Register pairs) { return _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)); }
inline Register pairs_of(Register sizes, Register bytes) { return _mm512_maddubs_epi16(sizes, bytes); }
inline Register sum(Register a, Register b) { return _mm512_add_epi16(a, b); }
inline Register absolute(Register bytes) { return _mm512_abs_epi8(bytes); }
inline Register turned(Register bytes, Register by) {
  return _mm512_mask_sub_epi8(bytes, _mm512_movepi8_mask(by), _mm512_setzero_si512(), bytes);
}
#endif
inline floats scaled(Register products, Places places, floats scales, floats sums) {
  const __m512 picked = _mm512_permutexvar_ps(reinterpret_cast<__m512i>(places), scales);
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), picked, sums);
}

#elif CODEWEFT_AVX2

typedef __m256i Register;
typedef int32_t Places __attribute__((vector_size(32)));
constexpr Places NUMBERS = {0, 1, 2, 3, 4, 5, 6, 7};

inline Register load_whole(const void* bytes) { return _mm256_loadu_si256(static_cast<const __m256i*>(bytes)); }
inline Register load_bytes(const void* bytes, int64_t count) {
  if (count >= 32) return load_whole(bytes);
  return _mm256_zextsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(bytes)));  // half a register: one group
}
inline floats load_scales(const uint16_t* scales, int64_t count) {
  __m128i bits = _mm_setzero_si128();
  if (count >= 8) bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales));
  else std::memcpy(&bits, scales, 2 * count);
  return _mm256_cvtph_ps(bits);
}
inline Register first_halves(Register packed) { return _mm256_and_si256(packed, _mm256_set1_epi8(15)); }
inline Register second_halves(Register packed) { return first_halves(_mm256_srli_epi16(packed, 4)); }
inline Register sums_of_pairs(Register pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }
inline Register pairs_of(Register sizes, Register bytes) { return _mm256_maddubs_epi16(sizes, bytes); }
inline Register sum(Register a, Register b) { return _mm256_add_epi16(a, b); }
inline Register absolute(Register bytes) { return _mm256_abs_epi8(bytes); }
inline Register turned(Register bytes, Register by) { return _mm256_sign_epi8(bytes, by); }
inline floats scaled(Register products, Places places, floats scales, floats sums) {
  const __m256 picked = _mm256_permutevar8x32_ps(scales, reinterpret_cast<__m256i>(places));
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), picked, sums);
}

#endif

#if (CODEWEFT_AVX512 || CODEWEFT_AVX2) && !defined(__AVX512VNNI__)

// Without VNNI products are of 16 bits before they are of 32. Two of 4-bit weights leave room for two more.
inline Register products4(Register left, Register front, Register right, Register back) {
  return sums_of_pairs(sum(pairs_of(left, front), pairs_of(right, back)));
}
// Two products of sizes with turned bytes stay below 2^15, as no byte of a vector is -128, and need no offset.
inline Register products8(Register weights, Register bytes) {
  return sums_of_pairs(pairs_of(absolute(weights), turned(bytes, weights)));
}

#endif

#if CODEWEFT_AVX512 || CODEWEFT_AVX2

constexpr int WIDTH = sizeof(Register);

// Multiplies R rows with M vectors by spans, and a span by the PARTS of it that fill a register of weights:
// part(first group of the span, number of the part, places of its scales in `both`, both, how a row is loaded).
template <int PARTS, int R, int M, class Part>
inline void for_parts(const uint16_t* scales, int64_t groups, const Vector* x, floats (*sums)[M], Part&& part) {
  constexpr int EACH = LANES / PARTS;  // groups of a register
  const auto places = [](int p) { return NUMBERS / PARTS + EACH * p; };
  for (int64_t first = 0; first < groups; first += LANES) {
    const int64_t left = groups - first;
    floats both[R][M];  // scales of the row times those of the vector
    for (int r = 0; r < R; r++) {
      const floats row = load_scales(scales + r * groups + first, left);
      for (int m = 0; m < M; m++) {
        both[r][m] = row * load(x[m].scales + first);
        sums[r][m] = multiply_add(row, load(x[m].offsets + first), sums[r][m]);
      }
    }
#pragma GCC unroll 8
    for (int p = 0; p < PARTS; p++) {
      if (EACH * (p + 1) > left) break;
      part(first, p, places(p), both, [](const void* bytes) { return load_whole(bytes); });
    }
    if (left < LANES && left % EACH)
      part(first, static_cast<int>(left / EACH), places(static_cast<int>(left / EACH)), both,
           [&](const void* bytes) { return load_bytes(bytes, left % EACH * (WIDTH / EACH)); });
  }
}

template <int R, int M>
inline void dot4(const uint8_t* rows, const uint16_t* scales, int64_t groups, const Vector* x, float (*result)[M]) {
  floats sums[R][M] = {};
  for_parts<4, R, M>(scales, groups, x, sums, [&](int64_t first, int p, Places places, floats (*both)[M], auto&& load) {
    Register left[R], right[R];
    for (int r = 0; r < R; r++) {
      const uint8_t* row = rows + (r * groups + first) * (GROUP / 2) + p * WIDTH;
      __builtin_prefetch(row + AHEAD);
      const Register packed = load(row);
      left[r] = first_halves(packed), right[r] = second_halves(packed);
    }
    for (int m = 0; m < M; m++) {
      const int8_t* bytes = x[m].bytes + first * GROUP + p * WIDTH / 64 * STRIP + p * WIDTH % 64;
      const Register front = load_whole(bytes), back = load_whole(bytes + STRIP / 2);
      for (int r = 0; r < R; r++)
        sums[r][m] = scaled(products4(left[r], front, right[r], back), places, both[r][m], sums[r][m]);
    }
  });
  totals<R, M>(sums, result);
}

template <int R, int M>
inline void dot8(const int8_t* rows, const uint16_t* scales, int64_t groups, const Vector* x, float (*result)[M]) {
  floats sums[R][M] = {};
  for_parts<8, R, M>(scales, groups, x, sums, [&](int64_t first, int p, Places places, floats (*both)[M], auto&& load) {
    Register weights[R];
    for (int r = 0; r < R; r++) {
      const int8_t* row = rows + (r * groups + first) * GROUP + p * WIDTH;
      __builtin_prefetch(row + AHEAD);
      weights[r] = load(row);
    }
    for (int m = 0; m < M; m++) {
      const Register bytes = load_whole(x[m].bytes + first * GROUP + p * WIDTH);
      for (int r = 0; r < R; r++)
        sums[r][m] = scaled(products8(weights[r], bytes), places, both[r][m], sums[r][m]);
    }
  });
  totals<R, M>(sums, result);
}

#else

inline float group_sum(const int8_t* weights, const int8_t* bytes) {
  int32_t sum = 0;
  for (int i = 0; i < GROUP; i++) sum += weights[i] * bytes[i];
  return static_cast<float>(sum);
}

template <int R, int M>
inline void dot4(const uint8_t* rows, const uint16_t* scales, int64_t groups, const Vector* x, float (*result)[M]) {
  for (int r = 0; r < R; r++) {
    float sums[M] = {};
    for (int64_t g = 0; g < groups; g++) {
      const uint8_t* packed = rows + (r * groups + g) * (GROUP / 2);
      int8_t weights[GROUP];
      for (int i = 0; i < GROUP / 2; i++) weights[i] = static_cast<int8_t>((packed[i] & 15) - 8);
      for (int i = 0; i < GROUP / 2; i++) weights[i + GROUP / 2] = static_cast<int8_t>((packed[i] >> 4) - 8);
      const float scale = half_to_float(scales[r * groups + g]);
      for (int m = 0; m < M; m++)
        sums[m] = multiply_add(scale * x[m].scales[g], group_sum(weights, x[m].bytes + g * GROUP), sums[m]);
    }
    std::copy_n(sums, M, result[r]);
  }
}

template <int R, int M>
inline void dot8(const int8_t* rows, const uint16_t* scales, int64_t groups, const Vector* x, float (*result)[M]) {
  for (int r = 0; r < R; r++) {
    float sums[M] = {};
    for (int64_t g = 0; g < groups; g++) {
      const int8_t* weights = rows + (r * groups + g) * GROUP;
      const float scale = half_to_float(scales[r * groups + g]);
      for (int m = 0; m < M; m++)
        sums[m] = multiply_add(scale * x[m].scales[g], group_sum(weights, x[m].bytes + g * GROUP), sums[m]);
    }
    std::copy_n(sums, M, result[r]);
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
  const int64_t columns = matrix.columns, groups = columns / GROUP;
  const uint16_t* scales = matrix.scales + n * groups;
  if (matrix.kind == FLOAT32) dot<R, M>(reinterpret_cast<const float*>(rows), columns, x, result);
  else if (matrix.kind == BFLOAT16) dot<R, M>(reinterpret_cast<const bfloat16*>(rows), columns, x, result);
  else if (matrix.kind == EIGHT_BITS) dot8<R, M>(reinterpret_cast<const int8_t*>(rows), scales, groups, x, result);
  else dot4<R, M>(reinterpret_cast<const uint8_t*>(rows), scales, groups, x, result);
}

// result[row - begin][m] of the rows from `begin` to `end` and up to AT_ONCE vectors. Compiled once for all users.
__attribute__((noinline)) void multiply_tile(const Matrix& matrix, int64_t begin, int64_t end, const Vector* x,
                                             int count, float (*result)[AT_ONCE]) {
  with_count<AT_ONCE>(count, [&](auto number) {
    // one row at a time reads memory in order; two share vectors, where there are registers for their sums
    constexpr int M = decltype(number)::value, R = M <= 2 || LANES < 16 ? 1 : 2;
    float found[R][M];
    const auto multiply_rows = [&](auto rows, int64_t n) {
      rows_of<decltype(rows)::value, M>(matrix, n, x, found);
      for (int r = 0; r < decltype(rows)::value; r++) std::copy_n(found[r], M, result[n + r - begin]);
    };
    int64_t n = begin;
    for (; n + R <= end; n += R) multiply_rows(std::integral_constant<int, R>{}, n);
    for (; n < end; n++) multiply_rows(std::integral_constant<int, 1>{}, n);
  });
}

// Hands every result to `give(vector, row, value)`, for the rows from `begin` to `end`.
template <class Give>
void multiply(const Matrix& matrix, int64_t begin, int64_t end, const Vector* x, int64_t count, Give&& give) {
  float result[TILE][AT_ONCE];
  for (int64_t tile = begin; tile < end; tile += TILE) {
    const int64_t tile_end = std::min(tile + TILE, end);
    for (int64_t first = 0; first < count; first += AT_ONCE) {
      const int together = static_cast<int>(std::min<int64_t>(AT_ONCE, count - first));
      multiply_tile(matrix, tile, tile_end, x + first, together, result);
      for (int64_t n = tile; n < tile_end; n++)
        for (int m = 0; m < together; m++) give(first + m, n, result[n - tile][m]);
    }
  }
}

}  // namespace
