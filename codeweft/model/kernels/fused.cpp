// Element-wise work and causal latent attention for training on processors, fused so that memory is read once.
//
// In:  pointers into contiguous tensors of float or bfloat16, their sizes, the number of threads.
// Out: results written in place. Everything is summed in float, in an order that no number of threads changes.
// Called by fused.py, which keeps the sizes right; matrix products outside attention are torch's.
// Source: DeepSeek-V2 §2.1.2 (attention, eq. 9 to 19), §2.2 (experts, eq. 20); Dao et al. 2022 (recomputing scores).

#include <vector>

#include "numbers.h"

namespace {

// ---------------------------------------------------------------- small matrix products that stay in the cache

constexpr int TALL = LANES == 16 ? 12 : 6;  // rows of a tile: what the registers hold
constexpr int PANEL = 2 * LANES;            // columns of a tile's right side: they stand together in memory

inline int64_t rounded_up(int64_t number, int64_t multiple) { return (number + multiple - 1) / multiple * multiple; }

// result[M, PANEL] (+)= left[M, depth] * panel[depth, PANEL], all sums in registers
template <int M>
inline void tile(const float* left, int64_t row, int64_t column, const float* panel, int64_t depth, float* result,
                 int64_t stride, bool add) {
  floats sums[M][2];
  for (int m = 0; m < M; m++) {
    sums[m][0] = add ? *reinterpret_cast<const floats*>(result + m * stride) : floats{};
    sums[m][1] = add ? *reinterpret_cast<const floats*>(result + m * stride + LANES) : floats{};
  }
  for (int64_t k = 0; k < depth; k++) {
    const floats first = *reinterpret_cast<const floats*>(panel + k * PANEL);
    const floats second = *reinterpret_cast<const floats*>(panel + k * PANEL + LANES);
    for (int m = 0; m < M; m++) {
      const float value = left[m * row + k * column];
      sums[m][0] += value * first;
      sums[m][1] += value * second;
    }
  }
  for (int m = 0; m < M; m++) {
    *reinterpret_cast<floats*>(result + m * stride) = sums[m][0];
    *reinterpret_cast<floats*>(result + m * stride + LANES) = sums[m][1];
  }
}

// result[rows, panels * PANEL] (+)= left[rows, depth] * right; left(m, k) = left[m * row + k * column], right in panels
void product(const float* left, int64_t row, int64_t column, const float* right, int64_t panel_size, int64_t rows,
             int64_t panels, int64_t depth, float* result, int64_t stride, bool add) {
  for (int64_t p = 0; p < panels; p++) {
    const float* panel = right + p * panel_size;
    float* place = result + p * PANEL;
    int64_t m = 0;
    for (; m + TALL <= rows; m += TALL) tile<TALL>(left + m * row, row, column, panel, depth, place + m * stride, stride, add);
    for (; m + 2 <= rows; m += 2) tile<2>(left + m * row, row, column, panel, depth, place + m * stride, stride, add);
    for (; m < rows; m++) tile<1>(left + m * row, row, column, panel, depth, place + m * stride, stride, add);
  }
}

// ---------------------------------------------------------------- attention

constexpr int64_t BLOCK = 48;  // queries whose scores exist at one time; a multiple of TALL

struct Shape {
  int64_t batch, tokens, heads, nope, rope, value, turns;  // turns: batch entries of the rotation, 1 or batch
  float scale;
  int64_t key() const { return nope + rope; }
};

// Pairs (0,1), (2,3), … of the rotary part turned by the token's angle, or back.
inline void turn(float* pairs, const float* cosine, const float* sine, int64_t width, float direction) {
  for (int64_t pair = 0; pair < width / 2; pair++) {
    const float even = pairs[2 * pair], odd = pairs[2 * pair + 1], s = direction * sine[pair];
    pairs[2 * pair] = even * cosine[pair] - odd * s;
    pairs[2 * pair + 1] = even * s + odd * cosine[pair];
  }
}

// What one thread works in, for one head at a time. Rows past the last token are zero.
struct Bench {
  int64_t padded, key_padded, value_padded;
  std::vector<float> keys, values, query, scores, output;

  explicit Bench(const Shape& shape)
      : padded(rounded_up(shape.tokens, PANEL)),
        key_padded(rounded_up(shape.key(), PANEL)),
        value_padded(rounded_up(shape.value, PANEL)),
        keys(padded * shape.key()),
        values(padded * shape.value),
        query(BLOCK * shape.key()),
        scores(BLOCK * padded),
        output(BLOCK * (key_padded > value_padded ? key_padded : value_padded)) {}
};

template <class T>
struct Inputs {
  const T *query, *expanded, *key_rope;  // [B,T,H,N+R], [B,T,H,N+V], [B,T,R], rotary parts not yet turned
  const float *cosine, *sine;            // [turns, T, R/2]
  const int64_t* starts;                 // [B,T], the first token that each may look at, never falling; null: 0
};

template <class T>
inline void read_key(const Inputs<T>& in, const Shape& shape, int64_t b, int64_t h, int64_t t, float* key) {
  const T* nope = in.expanded + ((b * shape.tokens + t) * shape.heads + h) * (shape.nope + shape.value);
  const T* rope = in.key_rope + (b * shape.tokens + t) * shape.rope;
  for (int64_t k = 0; k < shape.nope; k++) key[k] = read(nope[k]);
  for (int64_t k = 0; k < shape.rope; k++) key[shape.nope + k] = read(rope[k]);
  const int64_t angle = ((shape.turns == 1 ? 0 : b) * shape.tokens + t) * (shape.rope / 2);
  turn(key + shape.nope, in.cosine + angle, in.sine + angle, shape.rope, 1.0f);
}

template <class T>
inline void read_query(const Inputs<T>& in, const Shape& shape, int64_t b, int64_t h, int64_t t, float* query) {
  const T* source = in.query + ((b * shape.tokens + t) * shape.heads + h) * shape.key();
  for (int64_t k = 0; k < shape.key(); k++) query[k] = read(source[k]) * shape.scale;
  const int64_t angle = ((shape.turns == 1 ? 0 : b) * shape.tokens + t) * (shape.rope / 2);
  turn(query + shape.nope, in.cosine + angle, in.sine + angle, shape.rope, 1.0f);
}

// rows[count, width] into panels of PANEL columns: panels[column / PANEL][row][column % PANEL]; `depth` rows a panel
inline void pack_row(const float* row, int64_t place, int64_t width, int64_t depth, float* panels) {
  for (int64_t c = 0; c < width; c++) panels[(c / PANEL * depth + place) * PANEL + c % PANEL] = row[c];
}

// the same of the transposed matrix: panels[place / PANEL][column][place % PANEL]
inline void pack_column(const float* row, int64_t place, int64_t width, float* panels) {
  float* panel = panels + place / PANEL * width * PANEL + place % PANEL;
  for (int64_t c = 0; c < width; c++) panel[c * PANEL] = row[c];
}

// Which keys a block of queries may look at: from the start of its first query's document, which a panel begins.
struct Keys {
  int64_t begin, panels, width;

  template <class T>
  Keys(const Inputs<T>& in, const Shape& shape, int64_t b, int64_t query_begin, int64_t query_end)
      : begin(first(in, shape, b, query_begin) / PANEL * PANEL),
        panels((rounded_up(query_end, PANEL) - begin) / PANEL),
        width(panels * PANEL) {}

  // The first token that token t may look at.
  template <class T>
  static int64_t first(const Inputs<T>& in, const Shape& shape, int64_t b, int64_t t) {
    return in.starts == nullptr ? 0 : in.starts[b * shape.tokens + t];
  }
};

template <class T>
void attention_forward(const Inputs<T>& in, T* output, float* normaliser, const Shape& shape, int threads) {
  const int64_t key_width = shape.key(), tokens = shape.tokens, value_width = shape.value;
#pragma omp parallel num_threads(threads)
  {
    Bench bench(shape);
    bench.values.assign(bench.padded * bench.value_padded, 0.0f);
    std::vector<float> row(key_width);
#pragma omp for schedule(dynamic, 1)
    for (int64_t head = 0; head < shape.batch * shape.heads; head++) {
      const int64_t b = head / shape.heads, h = head % shape.heads;
      for (int64_t t = 0; t < tokens; t++) {
        read_key(in, shape, b, h, t, row.data());
        pack_column(row.data(), t, key_width, bench.keys.data());
        const T* value = in.expanded + ((b * tokens + t) * shape.heads + h) * (shape.nope + value_width) + shape.nope;
        for (int64_t v = 0; v < value_width; v++)
          bench.values[(v / PANEL * bench.padded + t) * PANEL + v % PANEL] = read(value[v]);
      }
      for (int64_t begin = 0; begin < tokens; begin += BLOCK) {
        const int64_t end = begin + BLOCK < tokens ? begin + BLOCK : tokens, rows = end - begin;
        const Keys keys(in, shape, b, begin, end);
        for (int64_t t = begin; t < end; t++) read_query(in, shape, b, h, t, bench.query.data() + (t - begin) * key_width);
        product(bench.query.data(), key_width, 1, bench.keys.data() + keys.begin * key_width, key_width * PANEL, rows,
                keys.panels, key_width, bench.scores.data(), keys.width, false);
        for (int64_t m = 0; m < rows; m++) {
          float* scores = bench.scores.data() + m * keys.width;
          const int64_t first = Keys::first(in, shape, b, begin + m) - keys.begin, visible = begin + m + 1 - keys.begin;
          float largest = scores[first], sum = 0.0f;
#pragma omp simd reduction(max : largest)
          for (int64_t s = first; s < visible; s++) largest = scores[s] > largest ? scores[s] : largest;
#pragma omp simd reduction(+ : sum)
          for (int64_t s = first; s < visible; s++) {
            scores[s] = exponential(scores[s] - largest);
            sum += scores[s];
          }
          std::fill(scores, scores + first, 0.0f);
          std::fill(scores + visible, scores + keys.width, 0.0f);
          normaliser[head * tokens + begin + m] = largest + std::log(sum);
          bench.query[m] = 1.0f / sum;  // the queries of this block are done with
        }
        product(bench.scores.data(), keys.width, 1, bench.values.data() + keys.begin * PANEL, bench.padded * PANEL, rows,
                bench.value_padded / PANEL, end - keys.begin, bench.output.data(), bench.value_padded, false);
        for (int64_t m = 0; m < rows; m++) {
          T* place = output + ((b * tokens + begin + m) * shape.heads + h) * value_width;
          for (int64_t v = 0; v < value_width; v++)
            write(place[v], bench.output[m * bench.value_padded + v] * bench.query[m]);
        }
      }
    }
  }
}

template <class T>
struct Gradients {
  T *query, *expanded, *key_rope;
};

template <class T>
void attention_backward(const Inputs<T>& in, const T* output, const T* gradient, const float* normaliser,
                        const Gradients<T>& out, const Shape& shape, int threads) {
  const int64_t key_width = shape.key(), tokens = shape.tokens, value_width = shape.value;
  std::vector<float> shared(shape.batch * shape.heads * tokens * shape.rope);  // every head's part of the one rotary key
#pragma omp parallel num_threads(threads)
  {
    Bench bench(shape);
    const int64_t padded = bench.padded, key_padded = bench.key_padded, value_padded = bench.value_padded;
    std::vector<float> key_rows(padded * key_padded), key_gradient(padded * key_padded);
    std::vector<float> value_gradient(padded * value_padded), query_rows(BLOCK * key_padded);
    std::vector<float> arrived(BLOCK * value_width), arrived_rows(BLOCK * value_padded), slopes(BLOCK * padded);
    std::vector<float> row(key_width > value_width ? key_width : value_width);
#pragma omp for schedule(dynamic, 1)
    for (int64_t head = 0; head < shape.batch * shape.heads; head++) {
      const int64_t b = head / shape.heads, h = head % shape.heads;
      for (int64_t t = 0; t < tokens; t++) {
        read_key(in, shape, b, h, t, row.data());
        pack_column(row.data(), t, key_width, bench.keys.data());
        pack_row(row.data(), t, key_width, padded, key_rows.data());
        const T* value = in.expanded + ((b * tokens + t) * shape.heads + h) * (shape.nope + value_width) + shape.nope;
        for (int64_t v = 0; v < value_width; v++) row[v] = read(value[v]);
        pack_column(row.data(), t, value_width, bench.values.data());
      }
      std::fill(key_gradient.begin(), key_gradient.end(), 0.0f);
      std::fill(value_gradient.begin(), value_gradient.end(), 0.0f);
      for (int64_t begin = 0; begin < tokens; begin += BLOCK) {
        const int64_t end = begin + BLOCK < tokens ? begin + BLOCK : tokens, rows = end - begin;
        const Keys keys(in, shape, b, begin, end);
        for (int64_t t = begin; t < end; t++) {
          float* query = bench.query.data() + (t - begin) * key_width;
          read_query(in, shape, b, h, t, query);
          pack_row(query, t - begin, key_width, BLOCK, query_rows.data());
          const T* source = gradient + ((b * tokens + t) * shape.heads + h) * value_width;
          float* place = arrived.data() + (t - begin) * value_width;
          for (int64_t v = 0; v < value_width; v++) place[v] = read(source[v]);
          pack_row(place, t - begin, value_width, BLOCK, arrived_rows.data());
        }
        product(bench.query.data(), key_width, 1, bench.keys.data() + keys.begin * key_width, key_width * PANEL, rows,
                keys.panels, key_width, bench.scores.data(), keys.width, false);
        product(arrived.data(), value_width, 1, bench.values.data() + keys.begin * value_width, value_width * PANEL, rows,
                keys.panels, value_width, slopes.data(), keys.width, false);
        for (int64_t m = 0; m < rows; m++) {
          float *weights = bench.scores.data() + m * keys.width, *slope = slopes.data() + m * keys.width;
          const T* made = output + ((b * tokens + begin + m) * shape.heads + h) * value_width;
          const float log_sum = normaliser[head * tokens + begin + m];
          const int64_t first = Keys::first(in, shape, b, begin + m) - keys.begin, visible = begin + m + 1 - keys.begin;
          float mean = 0.0f;
          for (int64_t v = 0; v < value_width; v++) mean += read(made[v]) * arrived[m * value_width + v];
#pragma omp simd
          for (int64_t s = first; s < visible; s++) {
            weights[s] = exponential(weights[s] - log_sum);
            slope[s] = weights[s] * (slope[s] - mean);
          }
          for (float* hidden : {weights, slope}) {
            std::fill(hidden, hidden + first, 0.0f);
            std::fill(hidden + visible, hidden + keys.width, 0.0f);
          }
        }
        product(slopes.data(), keys.width, 1, key_rows.data() + keys.begin * PANEL, padded * PANEL, rows,
                key_padded / PANEL, end - keys.begin, bench.output.data(), key_padded, false);
        product(slopes.data(), 1, keys.width, query_rows.data(), BLOCK * PANEL, end - keys.begin, key_padded / PANEL, rows,
                key_gradient.data() + keys.begin * key_padded, key_padded, true);
        product(bench.scores.data(), 1, keys.width, arrived_rows.data(), BLOCK * PANEL, end - keys.begin,
                value_padded / PANEL, rows, value_gradient.data() + keys.begin * value_padded, value_padded, true);
        for (int64_t t = begin; t < end; t++) {
          float* from = bench.output.data() + (t - begin) * key_padded;
          const int64_t angle = ((shape.turns == 1 ? 0 : b) * tokens + t) * (shape.rope / 2);
          turn(from + shape.nope, in.cosine + angle, in.sine + angle, shape.rope, -1.0f);
          T* place = out.query + ((b * tokens + t) * shape.heads + h) * key_width;
          for (int64_t k = 0; k < key_width; k++) write(place[k], from[k] * shape.scale);
        }
      }
      for (int64_t t = 0; t < tokens; t++) {
        T* place = out.expanded + ((b * tokens + t) * shape.heads + h) * (shape.nope + value_width);
        const float* key = key_gradient.data() + t * key_padded;
        for (int64_t k = 0; k < shape.nope; k++) write(place[k], key[k]);
        for (int64_t v = 0; v < value_width; v++) write(place[shape.nope + v], value_gradient[t * value_padded + v]);
        for (int64_t k = 0; k < shape.rope; k++) shared[(head * tokens + t) * shape.rope + k] = key[shape.nope + k];
      }
    }
    std::vector<float> total(shape.rope);
#pragma omp for
    for (int64_t place = 0; place < shape.batch * tokens; place++) {
      const int64_t b = place / tokens, t = place % tokens;
      std::fill(total.begin(), total.end(), 0.0f);
      for (int64_t h = 0; h < shape.heads; h++) {
        const float* part = shared.data() + ((b * shape.heads + h) * tokens + t) * shape.rope;
        for (int64_t k = 0; k < shape.rope; k++) total[k] += part[k];
      }
      const int64_t angle = ((shape.turns == 1 ? 0 : b) * tokens + t) * (shape.rope / 2);
      turn(total.data(), in.cosine + angle, in.sine + angle, shape.rope, -1.0f);
      for (int64_t k = 0; k < shape.rope; k++) write(out.key_rope[place * shape.rope + k], total[k]);
    }
  }
}

// ---------------------------------------------------------------- element-wise

constexpr int64_t NORM_BLOCK = 64;  // rows whose part of a weight's gradient is summed before the parts are

template <class T>
void norm_forward(const T* input, const T* weight, T* output, float* inverse, int64_t rows, int64_t width, float eps,
                  int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t m = 0; m < rows; m++) {
    const T* x = input + m * width;
    T* y = output + m * width;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < width; d++) sum += read(x[d]) * read(x[d]);
    const float factor = 1.0f / std::sqrt(sum / static_cast<float>(width) + eps);
    inverse[m] = factor;
#pragma omp simd
    for (int64_t d = 0; d < width; d++) write(y[d], read(x[d]) * factor * read(weight[d]));
  }
}

template <class T>
void norm_backward(const T* gradient, const T* input, const T* weight, const float* inverse, T* input_gradient,
                   T* weight_gradient, int64_t rows, int64_t width, int threads) {
  const int64_t blocks = (rows + NORM_BLOCK - 1) / NORM_BLOCK;
  std::vector<float> parts(blocks * width, 0.0f);
#pragma omp parallel for num_threads(threads)
  for (int64_t block = 0; block < blocks; block++) {
    float* part = parts.data() + block * width;
    const int64_t last = (block + 1) * NORM_BLOCK < rows ? (block + 1) * NORM_BLOCK : rows;
    for (int64_t m = block * NORM_BLOCK; m < last; m++) {
      const T *x = input + m * width, *g = gradient + m * width;
      T* place = input_gradient + m * width;
      float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
      for (int64_t d = 0; d < width; d++) sum += read(g[d]) * read(weight[d]) * read(x[d]);
      const float factor = inverse[m], mean = sum * factor * factor / static_cast<float>(width);
#pragma omp simd
      for (int64_t d = 0; d < width; d++) {
        part[d] += read(g[d]) * read(x[d]) * factor;
        write(place[d], factor * (read(g[d]) * read(weight[d]) - read(x[d]) * mean));
      }
    }
  }
  std::vector<float> total(width, 0.0f);
  for (int64_t block = 0; block < blocks; block++)
    for (int64_t d = 0; d < width; d++) total[d] += parts[block * width + d];
  for (int64_t d = 0; d < width; d++) write(weight_gradient[d], total[d]);
}

// activated = silu(gate) * up; a row of `both` holds gate, then up
template <class T>
void swiglu_forward(const T* both, T* activated, int64_t rows, int64_t width, int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t m = 0; m < rows; m++) {
    const T *gate = both + m * 2 * width, *up = gate + width;
    T* place = activated + m * width;
#pragma omp simd
    for (int64_t f = 0; f < width; f++) {
      const float g = read(gate[f]);
      write(place[f], g * sigmoid(g) * read(up[f]));
    }
  }
}

// From the gradient of activated times weight: that of gate and up, of the row's weight, and activated times weight
// itself. `weights` may be null (all 1, no gradient).
template <class T>
void swiglu_backward(const T* both, const T* gradient, const float* weights, T* both_gradient, T* activated,
                     float* weight_gradient, int64_t rows, int64_t width, int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t m = 0; m < rows; m++) {
    const T *gate = both + m * 2 * width, *up = gate + width, *arrived = gradient + m * width;
    T *gate_place = both_gradient + m * 2 * width, *up_place = gate_place + width, *place = activated + m * width;
    const float weight = weights ? weights[m] : 1.0f;
    float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
    for (int64_t f = 0; f < width; f++) {
      const float g = read(gate[f]), u = read(up[f]), s = sigmoid(g), silu = g * s, a = read(arrived[f]);
      dot += a * silu * u;
      write(place[f], weight * silu * u);
      write(up_place[f], weight * a * silu);
      write(gate_place[f], weight * a * u * (s + silu * (1.0f - s)));
    }
    if (weights) weight_gradient[m] = dot;
  }
}

// output[m] = base[m] + sum over k of weights[m, k] * rows[places[m, k]]; base and weights may be null
template <class T>
void combine(const T* rows, const int64_t* places, const float* weights, const T* base, T* output, int64_t tokens,
             int64_t copies, int64_t width, int threads) {
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> sum(width);
#pragma omp for
    for (int64_t m = 0; m < tokens; m++) {
      for (int64_t d = 0; d < width; d++) sum[d] = base ? read(base[m * width + d]) : 0.0f;
      for (int64_t k = 0; k < copies; k++) {
        const T* row = rows + places[m * copies + k] * width;
        const float weight = weights ? weights[m * copies + k] : 1.0f;
#pragma omp simd
        for (int64_t d = 0; d < width; d++) sum[d] += weight * read(row[d]);
      }
      for (int64_t d = 0; d < width; d++) write(output[m * width + d], sum[d]);
    }
  }
}

// output[a] = rows[order[a] / copies]
template <class T>
void gather(const T* rows, const int64_t* order, T* output, int64_t assignments, int64_t copies, int64_t width,
            int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t a = 0; a < assignments; a++)
    std::memcpy(output + a * width, rows + order[a] / copies * width, width * sizeof(T));
}

// Logits become the gradient of `factor` times the summed cross-entropy; losses[m] is the row's cross-entropy in nats.
template <class T>
void cross_entropy(T* logits, const int64_t* targets, float* losses, int64_t rows, int64_t words, float factor,
                   int threads) {
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> powers(words);
#pragma omp for
    for (int64_t m = 0; m < rows; m++) {
      T* row = logits + m * words;
      float largest = read(row[0]), sum = 0.0f;
#pragma omp simd reduction(max : largest)
      for (int64_t w = 0; w < words; w++) largest = read(row[w]) > largest ? read(row[w]) : largest;
#pragma omp simd reduction(+ : sum)
      for (int64_t w = 0; w < words; w++) {
        powers[w] = exponential(read(row[w]) - largest);
        sum += powers[w];
      }
      losses[m] = largest + std::log(sum) - read(row[targets[m]]);
      const float share = factor / sum;
      const float wanted = powers[targets[m]] * share - factor;
#pragma omp simd
      for (int64_t w = 0; w < words; w++) write(row[w], powers[w] * share);
      write(row[targets[m]], wanted);
    }
  }
}

}  // namespace

#define EXPORT(T, SUFFIX)                                                                                              \
  extern "C" void attention_forward_##SUFFIX(const T* query, const T* expanded, const T* key_rope,                     \
                                             const float* cosine, const float* sine, const int64_t* starts,            \
                                             T* output, float* normaliser, int64_t batch, int64_t tokens,              \
                                             int64_t heads, int64_t nope, int64_t rope, int64_t value,                 \
                                             int64_t turns, float scale, int threads) {                                \
    attention_forward<T>({query, expanded, key_rope, cosine, sine, starts}, output, normaliser,                        \
                         {batch, tokens, heads, nope, rope, value, turns, scale}, threads);                            \
  }                                                                                                                    \
  extern "C" void attention_backward_##SUFFIX(                                                                         \
      const T* query, const T* expanded, const T* key_rope, const float* cosine, const float* sine,                    \
      const int64_t* starts, const T* output, const T* gradient, const float* normaliser, T* query_gradient,           \
      T* expanded_gradient, T* key_rope_gradient, int64_t batch, int64_t tokens, int64_t heads, int64_t nope,          \
      int64_t rope, int64_t value, int64_t turns, float scale, int threads) {                                          \
    attention_backward<T>({query, expanded, key_rope, cosine, sine, starts}, output, gradient, normaliser,             \
                          {query_gradient, expanded_gradient, key_rope_gradient},                                      \
                          {batch, tokens, heads, nope, rope, value, turns, scale}, threads);                           \
  }                                                                                                                    \
  extern "C" void norm_forward_##SUFFIX(const T* input, const T* weight, T* output, float* inverse, int64_t rows,     \
                                        int64_t width, float eps, int threads) {                                      \
    norm_forward<T>(input, weight, output, inverse, rows, width, eps, threads);                                       \
  }                                                                                                                   \
  extern "C" void norm_backward_##SUFFIX(const T* gradient, const T* input, const T* weight, const float* inverse,    \
                                         T* input_gradient, T* weight_gradient, int64_t rows, int64_t width,          \
                                         int threads) {                                                               \
    norm_backward<T>(gradient, input, weight, inverse, input_gradient, weight_gradient, rows, width, threads);        \
  }                                                                                                                   \
  extern "C" void swiglu_forward_##SUFFIX(const T* both, T* activated, int64_t rows, int64_t width, int threads) {    \
    swiglu_forward<T>(both, activated, rows, width, threads);                                                         \
  }                                                                                                                   \
  extern "C" void swiglu_backward_##SUFFIX(const T* both, const T* gradient, const float* weights, T* both_gradient,  \
                                           T* activated, float* weight_gradient, int64_t rows, int64_t width,         \
                                           int threads) {                                                             \
    swiglu_backward<T>(both, gradient, weights, both_gradient, activated, weight_gradient, rows, width, threads);     \
  }                                                                                                                   \
  extern "C" void combine_##SUFFIX(const T* rows, const int64_t* places, const float* weights, const T* base,         \
                                   T* output, int64_t tokens, int64_t copies, int64_t width, int threads) {           \
    combine<T>(rows, places, weights, base, output, tokens, copies, width, threads);                                  \
  }                                                                                                                   \
  extern "C" void gather_##SUFFIX(const T* rows, const int64_t* order, T* output, int64_t assignments,                \
                                  int64_t copies, int64_t width, int threads) {                                       \
    gather<T>(rows, order, output, assignments, copies, width, threads);                                              \
  }                                                                                                                   \
  extern "C" void cross_entropy_##SUFFIX(T* logits, const int64_t* targets, float* losses, int64_t rows,              \
                                         int64_t words, float factor, int threads) {                                  \
    cross_entropy<T>(logits, targets, losses, rows, words, factor, threads);                                          \
  }

EXPORT(float, float32)
EXPORT(bfloat16, bfloat16)
