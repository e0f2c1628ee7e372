// Gumbel-max over a vocabulary without making the noise of every token.
//
// In:  logits [S, W], a temperature and a key for each row.  Out: the token with the largest logit / temperature + noise.
// The noise is sampling.py's: -log(-log u), u a hash of (key, token). A token can only win if -log u, which is at least
// 1 - u, is below exp(score - best); so logarithms are taken of those few tokens alone that pass this test, in double
// precision, and the winner is the one that sampling.py finds, but for scores as close as the rounding of a logarithm.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace {

constexpr int64_t STRIP = 64;           // tokens that are tested at once
constexpr float MARGIN = 1.001f;        // of the test, for what single precision rounds away
constexpr float SMALLEST = -87.0f;      // exp of less is 0 in single precision
constexpr double STEPS = 4294967296.0;  // 2^32

inline uint32_t scramble(uint32_t bits) {
  bits ^= bits >> 16;
  bits *= 0x7FEB352Du;
  bits ^= bits >> 15;
  bits *= 0x846CA68Bu;
  return bits ^ (bits >> 16);
}

inline uint32_t hashed(uint32_t column, uint32_t low, uint32_t high) {
  return scramble(scramble(scramble(column) ^ low) + high);
}

// exp to about six digits, in operations that work on vectors
inline float quick_exp(float x) {
  const float scaled = std::max(x, SMALLEST) * 1.44269504f;
  const float whole = std::floor(scaled), part = scaled - whole;
  float power = 1.3333558e-3f;
  power = power * part + 9.6181291e-3f;
  power = power * part + 5.5504109e-2f;
  power = power * part + 2.4022651e-1f;
  power = power * part + 6.9314718e-1f;
  power = power * part + 1.0f;
  union { int32_t bits; float value; } scale = {(static_cast<int32_t>(whole) + 127) << 23};
  return power * scale.value;
}

int64_t drawn(const float* logits, int64_t words, double temperature, uint32_t low, uint32_t high) {
  const int64_t likeliest = std::max_element(logits, logits + words) - logits;
  const double largest = logits[likeliest];
  auto perturbed = [&](int64_t token) {
    const double u = (hashed(static_cast<uint32_t>(token), low, high) + 0.5) / STEPS;
    return (logits[token] - largest) / temperature - std::log(-std::log(u));
  };
  int64_t winner = likeliest;
  double best = perturbed(likeliest);
  const float top = static_cast<float>(largest), inverse = static_cast<float>(1.0 / temperature);
  for (int64_t start = 0; start < words; start += STRIP) {
    const int64_t end = std::min(start + STRIP, words);
    // beyond what single precision holds every token is looked at
    const float bound = MARGIN * static_cast<float>(std::min(std::exp(-best), 1e30));
    int possible = 0;
    for (int64_t token = start; token < end; ++token) {
      const uint32_t left = ~hashed(static_cast<uint32_t>(token), low, high);
      const float rest = (static_cast<float>(left) + 0.5f) * static_cast<float>(1.0 / STEPS);
      possible |= rest < quick_exp((logits[token] - top) * inverse) * bound + 1e-30f;
    }
    if (!possible) continue;
    for (int64_t token = start; token < end; ++token) {
      const double score = perturbed(token);
      if (score > best) {
        best = score;
        winner = token;
      }
    }
  }
  return winner;
}

}  // namespace

extern "C" void draw(const float* logits, int64_t rows, int64_t words, int64_t stride, const double* temperatures,
                     const int64_t* keys, int64_t* tokens, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const uint64_t key = static_cast<uint64_t>(keys[row]);
    tokens[row] = drawn(logits + row * stride, words, temperatures[row], static_cast<uint32_t>(key),
                        static_cast<uint32_t>(key >> 32));
  }
}
