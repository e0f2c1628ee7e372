// Numbers of the kernels: bfloat16 in memory, and functions that compilers vectorise loops around.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

struct bfloat16 {
  uint16_t bits;
};

// Numbers of one register.
#if defined(__AVX512BW__) && defined(__AVX512VL__)
#define CODEWEFT_AVX512 1
constexpr int LANES = 16;
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define CODEWEFT_AVX2 1
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float floats __attribute__((vector_size(4 * LANES), aligned(4)));

inline float read(float value) { return value; }

inline float read(bfloat16 value) {
  uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

inline void write(float& place, float value) { place = value; }

inline void write(bfloat16& place, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
  // rounding could carry a NaN over into infinity, and a NaN must stay visible
  place.bits = static_cast<uint16_t>(value != value ? 0x7fc0u : rounded);
}

// e^x to about one unit in the last place, written so that compilers vectorise loops around it; NaN stays NaN.
inline float exponential(float x) {
  x = x > 88.0f ? 88.0f : (x < -87.0f ? -87.0f : x);
  float whole = x * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds to an integer, kept in the low bits
  int32_t bits;
  std::memcpy(&bits, &whole, 4);
  whole -= 12582912.0f;
  float rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  float value = 1.9875691500e-4f;
  value = value * rest + 1.3981999507e-3f;
  value = value * rest + 8.3334519073e-3f;
  value = value * rest + 4.1665795894e-2f;
  value = value * rest + 1.6666665459e-1f;
  value = value * rest + 5.0000001201e-1f;
  value = value * rest * rest + rest + 1.0f;
  int32_t scaled = (bits << 23) + 0x3f800000;  // 2^whole
  float power;
  std::memcpy(&power, &scaled, 4);
  return value * power;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

}  // namespace
