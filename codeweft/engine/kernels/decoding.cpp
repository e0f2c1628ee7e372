// One pass of few tokens through a whole DeepSeek-V2 model: embedding, layers, final norm, head.
//
// In:  weights by address, a paged latent cache, tokens with their positions and tables of blocks.
// Out: the tokens' latents in the cache, logits of those that are looked at.
// Source: DeepSeek-V2 §2.1 (attention in its absorbed form), §2.2 (experts); decoding.py says what is what.
//
// With one token almost all time is reading weights, so each is read once, by whichever thread is free. The threads
// stay together for the whole pass and meet at barriers. Activations are float32. A token's numbers do not depend on
// the other tokens: every sum runs in an order of its own, and keys are divided at fixed places.

#include <numeric>

#include "products.h"

namespace {

constexpr int64_t BLOCK = 16;   // tokens of a block of the cache
constexpr int64_t SPLIT = 512;  // keys that one piece of work attends to
constexpr int64_t STEP = 64;    // keys between two looks at the maximum
constexpr int HEADS = 8;        // heads that read the keys together, at most

// As decoding.py lays them out.
struct Layer {
  Matrix input_norm, query_down, query_norm, query, latent_down, latent_norm, up, output, post_norm;
  Matrix gate, inner, down;                     // a dense layer, or the experts that all tokens share
  Matrix router, expert_gate_inner, expert_down;
};

struct Model {
  int64_t layers, hidden, heads, nope, rope, value, latent;
  int64_t experts, chosen, groups, kept_groups, normalised;
  double scale, routed_scale, epsilon, latent_epsilon;
  Matrix embedding, norm, head;
  const Layer* layer;

  int64_t width() const { return latent + rope; }
  int64_t key() const { return nope + rope; }
};

struct Cache {
  int64_t kind, blocks;  // of each layer
  void* entries;
};

struct Call {
  int64_t count;  // tokens
  const int32_t *tokens, *sequences, *positions;
  const int32_t* tables;  // [sequences, table_width]
  int64_t table_width;
  const float *cosine, *sine;  // [positions, rope / 2]
  int64_t wanted;
  const int32_t* wanted_tokens;
  float* logits;  // [wanted, vocabulary]
};

inline float sum_of_squares(const float* x, int64_t count) {
  floats sums{};
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) sums += load(x + i) * load(x + i);
  float rest = 0.0f;
  for (; i < count; i++) rest += x[i] * x[i];
  return total(sums) + rest;
}

template <class T>
inline void scaled(const float* x, float factor, const T* weight, int64_t count, float* y) {
  for (int64_t i = 0; i < count; i++) y[i] = x[i] * factor * read(weight[i]);
}

// x / rms(x) * weight
inline void normalise(const float* x, const Matrix& weight, double epsilon, float* y) {
  const int64_t count = weight.columns;
  const float factor = 1.0f / std::sqrt(sum_of_squares(x, count) / static_cast<float>(count) + static_cast<float>(epsilon));
  if (weight.kind == FLOAT32) scaled(x, factor, static_cast<const float*>(weight.data), count, y);
  else scaled(x, factor, static_cast<const bfloat16*>(weight.data), count, y);
}

inline void read_row(const Matrix& matrix, int64_t row, float* y) {
  for (int64_t i = 0; i < matrix.columns; i++)
    y[i] = matrix.kind == FLOAT32 ? static_cast<const float*>(matrix.data)[row * matrix.columns + i]
                                  : read(static_cast<const bfloat16*>(matrix.data)[row * matrix.columns + i]);
}

// sums[m][c] += factor(m, k) * row(k)[c] over k, for M rows of sums and the columns of two registers
template <int M, class T, class Row, class Factor>
inline void mix_columns(int64_t rows, int64_t column, Row&& row, Factor&& factor, float* const* sums) {
  floats first[M], second[M];
  for (int m = 0; m < M; m++) first[m] = load(sums[m] + column), second[m] = load(sums[m] + column + LANES);
  for (int64_t k = 0; k < rows; k++) {
    const T* place = reinterpret_cast<const T*>(row(k)) + column;
    const floats left = load(place), right = load(place + LANES);
    for (int m = 0; m < M; m++) {
      const floats weight = factor(m, k) - floats{};  // in all lanes
      first[m] = multiply_add(weight, left, first[m]);
      second[m] = multiply_add(weight, right, second[m]);
    }
  }
  for (int m = 0; m < M; m++) {
    std::memcpy(sums[m] + column, &first[m], sizeof first[m]);
    std::memcpy(sums[m] + column + LANES, &second[m], sizeof second[m]);
  }
}

template <int M, class T, class Row, class Factor>
inline void mix_all(int64_t rows, int64_t columns, Row&& row, Factor&& factor, float* const* sums) {
  int64_t c = 0;
  for (; c + 2 * LANES <= columns; c += 2 * LANES) mix_columns<M, T>(rows, c, row, factor, sums);
  for (int64_t k = 0; k < rows && c < columns; k++)
    for (int m = 0; m < M; m++)
      for (int64_t i = c; i < columns; i++)
        sums[m][i] = multiply_add(factor(m, k), read(reinterpret_cast<const T*>(row(k))[i]), sums[m][i]);
}

template <int M, class Row, class Factor>
inline void mix(int64_t kind, int64_t rows, int64_t columns, Row&& row, Factor&& factor, float* const* sums) {
  if (kind == FLOAT32) mix_all<M, float>(rows, columns, row, factor, sums);
  else mix_all<M, bfloat16>(rows, columns, row, factor, sums);
}

struct Task {
  int64_t token, part, head;  // of attention: a token, which piece of its keys, the first of some heads
};

struct Tile {
  int64_t expert, begin, end;  // rows of an expert; expert -1: of the one that all tokens share
};

class Pass {
 public:
  Pass(const Model& model, const Cache& cache) : model_(model), cache_(cache) {}

  void run(const Call& call, int threads) {
    call_ = call;
    prepare();
#pragma omp parallel num_threads(threads)
    {
      embed();
      for (int64_t l = 0; l < model_.layers; l++) {
        const Layer& layer = model_.layer[l];
        attend(layer, l);
        if (layer.router.data) mixture(layer);
        else dense(layer);
      }
      finish();
    }
  }

 private:
  // ------------------------------------------------------------ room, made by one thread before the others start

  void prepare() {
    const Model& m = model_;
    const int64_t count = call_.count, heads = m.heads;
    hidden_.resize(count * m.hidden);
    input_.resize(count, m.hidden, any_quantised());
    const Layer& first = m.layer[0];
    if (first.query_down.data) {
      low_.resize(count * first.query_down.rows);
      query_input_.resize(count, first.query_down.rows, any_quantised());
    }
    query_.resize(count * heads * m.key());
    compressed_.resize(count * m.width());
    asked_.resize(count * heads, m.width(), false);
    mixed_.resize(heads * count, m.latent, false);
    attended_.resize(count, heads * m.value, any_quantised());
    group_ = static_cast<int>(std::min<int64_t>(HEADS, std::max<int64_t>(1, heads / 2)));
    tasks_.clear();
    first_task_.resize(count);
    for (int64_t t = 0; t < count; t++) {
      first_task_[t] = static_cast<int64_t>(tasks_.size());
      for (int64_t part = 0; part * SPLIT <= call_.positions[t]; part++)
        for (int64_t head = 0; head < heads; head += group_) tasks_.push_back({t, part, head});
    }
    maxima_.resize(tasks_.size() * group_);
    sums_.resize(tasks_.size() * group_);
    outputs_.resize(tasks_.size() * group_ * m.latent);
    final_.resize(call_.wanted, m.hidden, m.head.quantised());
    scores_.resize(count * m.experts);
  }

  bool any_quantised() const {
    const Layer &first = model_.layer[0], &last = model_.layer[model_.layers - 1];
    return first.query.quantised() || first.gate.quantised() || last.expert_down.quantised();
  }

  // ------------------------------------------------------------ work that all threads share

  // Every row of a matrix with every vector; all threads meet at the end.
  template <class Give>
  void product(const Matrix& matrix, const Vector* x, int64_t count, Give&& give) {
    const int64_t step = step_of(matrix.rows);
#pragma omp for schedule(dynamic)
    for (int64_t tile = 0; tile < (matrix.rows + step - 1) / step; tile++)
      multiply(matrix, tile * step, std::min((tile + 1) * step, matrix.rows), x, count, give);
  }

  static int64_t step_of(int64_t rows) { return std::min<int64_t>(128, std::max<int64_t>(TILE, rows / 64 * 4)) / 4 * 4; }

  template <class Fill>
  void fill(Vectors& vectors, int64_t count, const Matrix& used_by, Fill&& fill_one) {
#pragma omp for schedule(static)
    for (int64_t m = 0; m < count; m++) {
      fill_one(m, vectors.values(m));
      if (used_by.quantised()) vectors.quantise(m, used_by.kind);
    }
  }

  void embed() {
#pragma omp for schedule(static)
    for (int64_t t = 0; t < call_.count; t++) read_row(model_.embedding, call_.tokens[t], hidden(t));
  }

  float* hidden(int64_t t) { return hidden_.data() + t * model_.hidden; }

  void finish() {
    fill(final_, call_.wanted, model_.head, [&](int64_t w, float* y) {
      normalise(hidden(call_.wanted_tokens[w]), model_.norm, model_.epsilon, y);
    });
    const int64_t rows = model_.head.rows;
    product(model_.head, final_.list(), call_.wanted,
            [&](int64_t w, int64_t n, float value) { call_.logits[w * rows + n] = value; });
  }

  // ------------------------------------------------------------ attention

  void attend(const Layer& layer, int64_t l) {
    const Model& m = model_;
    const int64_t count = call_.count, heads = m.heads, queries = heads * m.key();
    fill(input_, count, layer.latent_down,
         [&](int64_t t, float* y) { normalise(hidden(t), layer.input_norm, m.epsilon, y); });
    if (layer.query_down.data) {
      const int64_t rows = layer.query_down.rows;
      product(layer.query_down, input_.list(), count,
              [&](int64_t t, int64_t n, float value) { low_[t * rows + n] = value; });
      fill(query_input_, count, layer.query, [&](int64_t t, float* y) {
        normalise(low_.data() + t * rows, layer.query_norm, m.latent_epsilon, y);
      });
    }
    const Vectors& asking = layer.query_down.data ? query_input_ : input_;
    product(layer.query, asking.list(), count,
            [&](int64_t t, int64_t n, float value) { query_[t * queries + n] = value; });
    product(layer.latent_down, input_.list(), count,
            [&](int64_t t, int64_t n, float value) { compressed_[t * m.width() + n] = value; });
#pragma omp for schedule(static)
    for (int64_t t = 0; t < count; t++) remember(layer, l, t);
#pragma omp for schedule(dynamic)
    for (int64_t head = 0; head < heads; head++) absorb(layer, head);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < static_cast<int64_t>(tasks_.size()); task++) attend_part(l, task);
#pragma omp for schedule(dynamic)
    for (int64_t head = 0; head < heads; head++) give_values(layer, head);
    if (layer.output.quantised()) {
#pragma omp for schedule(static)
      for (int64_t t = 0; t < count; t++) attended_.quantise(t, layer.output.kind);
    }
    product(layer.output, attended_.list(), count,
            [&](int64_t t, int64_t n, float value) { hidden(t)[n] += value; });
  }

  void turn(const float* pairs, int64_t token, float factor, float* y) const {
    const int64_t half = model_.rope / 2, at = call_.positions[token] * half;
    for (int64_t i = 0; i < half; i++) {
      const float even = pairs[2 * i], odd = pairs[2 * i + 1];
      const float cosine = call_.cosine[at + i], sine = call_.sine[at + i];
      y[2 * i] = factor * (even * cosine - odd * sine);
      y[2 * i + 1] = factor * (even * sine + odd * cosine);
    }
  }

  int64_t entry(int64_t l, int64_t token, int64_t position) const {
    const int32_t block = call_.tables[call_.sequences[token] * call_.table_width + position / BLOCK];
    return ((l * cache_.blocks + block) * BLOCK + position % BLOCK) * model_.width();
  }

  // Write a token's latent, normed, and its rotary key, turned, into the cache.
  void remember(const Layer& layer, int64_t l, int64_t t) {
    const Model& m = model_;
    float* row = compressed_.data() + t * m.width();
    normalise(row, layer.latent_norm, m.latent_epsilon, row);
    turn(row + m.latent, t, 1.0f, row + m.latent);
    const int64_t place = entry(l, t, call_.positions[t]);
    for (int64_t i = 0; i < m.width(); i++) {
      if (cache_.kind == FLOAT32) static_cast<float*>(cache_.entries)[place + i] = row[i];
      else write(static_cast<bfloat16*>(cache_.entries)[place + i], row[i]);
    }
  }

  // Move W^UK over to the queries of one head, and turn their rotary part; both times the softmax scale.
  void absorb(const Layer& layer, int64_t head) {
    const Model& m = model_;
    const Matrix up = layer.up.from(head * (m.nope + m.value), m.nope);
    const float scale = static_cast<float>(m.scale);
    for (int64_t first = 0; first < call_.count; first += AT_ONCE) {
      with_count<AT_ONCE>(static_cast<int>(std::min<int64_t>(AT_ONCE, call_.count - first)), [&](auto number) {
        constexpr int M = decltype(number)::value;
        float* sums[M];
        const float* query[M];
        for (int i = 0; i < M; i++) {
          const int64_t t = first + i;
          sums[i] = asked_.values(t * m.heads + head);
          query[i] = query_.data() + (t * m.heads + head) * m.key();
          std::fill(sums[i], sums[i] + m.latent, 0.0f);
          turn(query[i] + m.nope, t, scale, sums[i] + m.latent);
        }
        mix<M>(up.kind, m.nope, m.latent,
               [&](int64_t k) { return static_cast<const char*>(up.data) + k * up.row_bytes(); },
               [&](int i, int64_t k) { return scale * query[i][k]; }, sums);
      });
    }
  }

  // Some heads of one token over a piece of its keys: maxima, sums of exponentials, and latents mixed by them.
  void attend_part(int64_t l, int64_t number) {
    const Model& m = model_;
    const Task task = tasks_[number];
    const int64_t heads = std::min<int64_t>(group_, m.heads - task.head);
    const int64_t end = std::min<int64_t>(call_.positions[task.token] + 1, (task.part + 1) * SPLIT);
    float* maxima = maxima_.data() + number * group_;
    float* sums = sums_.data() + number * group_;
    float* outputs = outputs_.data() + number * group_ * m.latent;
    std::fill(maxima, maxima + heads, -INFINITY);
    std::fill(sums, sums + heads, 0.0f);
    std::fill(outputs, outputs + heads * m.latent, 0.0f);
    const Vector* asked = asked_.list() + task.token * m.heads + task.head;
    const int64_t size = cache_.kind == FLOAT32 ? 4 : 2;
    float scores[HEADS][STEP];
    const char* keys[STEP];
    for (int64_t begin = task.part * SPLIT; begin < end; begin += STEP) {
      const int64_t count = std::min(STEP, end - begin);
      for (int64_t k = 0; k < count; k += BLOCK) {
        const char* block = static_cast<const char*>(cache_.entries) + size * entry(l, task.token, begin + k);
        const int64_t here = std::min(BLOCK, count - k);
        for (int64_t i = 0; i < here; i++) keys[k + i] = block + i * m.width() * size;
        const Matrix matrix{cache_.kind, here, m.width(), block, nullptr};
        multiply(matrix, 0, here, asked, heads, [&](int64_t h, int64_t n, float value) { scores[h][k + n] = value; });
      }
      for (int64_t h = 0; h < heads; h++) {
        float largest = maxima[h];
        for (int64_t k = 0; k < count; k++) largest = std::max(largest, scores[h][k]);
        const float factor = exponential(maxima[h] - largest);
        for (int64_t k = 0; k < count; k++) scores[h][k] = exponential(scores[h][k] - largest);
        float sum = 0.0f;
        for (int64_t k = 0; k < count; k++) sum += scores[h][k];
        sums[h] = sums[h] * factor + sum;
        maxima[h] = largest;
        if (factor != 1.0f)
          for (int64_t c = 0; c < m.latent; c++) outputs[h * m.latent + c] *= factor;
      }
      with_count<HEADS>(static_cast<int>(heads), [&](auto number_of_heads) {
        constexpr int M = decltype(number_of_heads)::value;
        float* places[M];
        for (int h = 0; h < M; h++) places[h] = outputs + h * m.latent;
        mix<M>(cache_.kind, count, m.latent, [&](int64_t k) { return keys[k]; },
               [&](int h, int64_t k) { return scores[h][k]; }, places);
      });
    }
  }

  // Put the pieces of one head together, and read its values out of the mixed latents (W^UV).
  void give_values(const Layer& layer, int64_t head) {
    const Model& m = model_;
    const int64_t groups = (m.heads + group_ - 1) / group_, in_group = head % group_;
    for (int64_t t = 0; t < call_.count; t++) {
      float* mixed = mixed_.values(head * call_.count + t);
      std::fill(mixed, mixed + m.latent, 0.0f);
      const int64_t parts = call_.positions[t] / SPLIT + 1;
      auto place = [&](int64_t part) { return (first_task_[t] + part * groups + head / group_) * group_ + in_group; };
      float largest = -INFINITY, sum = 0.0f;
      for (int64_t part = 0; part < parts; part++) largest = std::max(largest, maxima_[place(part)]);
      for (int64_t part = 0; part < parts; part++) {
        const float weight = exponential(maxima_[place(part)] - largest);
        const float* output = outputs_.data() + place(part) * m.latent;
        sum += weight * sums_[place(part)];
        for (int64_t c = 0; c < m.latent; c++) mixed[c] += weight * output[c];
      }
      for (int64_t c = 0; c < m.latent; c++) mixed[c] /= sum;
    }
    const Matrix up = layer.up.from(head * (m.nope + m.value) + m.nope, m.value);
    multiply(up, 0, m.value, mixed_.list() + head * call_.count, call_.count,
             [&](int64_t t, int64_t n, float value) { attended_.values(t)[head * m.value + n] = value; });
  }

  // ------------------------------------------------------------ feed-forward

  // Rows of silu(gate x) * (inner x) of some vectors; y(i)[row].
  template <class Place>
  void gated(const Matrix& gate, const Matrix& inner, int64_t begin, int64_t end, const Vector* x, int64_t count,
             Place&& place) {
    multiply(gate, begin, end, x, count, [&](int64_t i, int64_t n, float value) { place(i)[n] = value; });
    multiply(inner, begin, end, x, count, [&](int64_t i, int64_t n, float value) {
      float& y = place(i)[n];
      y = y * sigmoid(y) * value;
    });
  }

  void normed_input(const Layer& layer, const Matrix& used_by) {
    fill(input_, call_.count, used_by,
         [&](int64_t t, float* y) { normalise(hidden(t), layer.post_norm, model_.epsilon, y); });
  }

  // Room for the inner values of the shared or dense part; meets the other threads.
  void inner_room(const Layer& layer) {
#pragma omp single
    shared_.resize(call_.count, layer.gate.data ? layer.gate.rows : 1, layer.down.quantised());
  }

  void dense(const Layer& layer) {
    const int64_t count = call_.count, step = step_of(layer.gate.rows);
    normed_input(layer, layer.gate);
    inner_room(layer);
#pragma omp for schedule(dynamic)
    for (int64_t tile = 0; tile < (layer.gate.rows + step - 1) / step; tile++)
      gated(layer.gate, layer.inner, tile * step, std::min((tile + 1) * step, layer.gate.rows), input_.list(), count,
            [&](int64_t i) { return shared_.values(i); });
    if (layer.down.quantised()) {
#pragma omp for schedule(static)
      for (int64_t t = 0; t < count; t++) shared_.quantise(t, layer.down.kind);
    }
    product(layer.down, shared_.list(), count, [&](int64_t t, int64_t n, float value) { hidden(t)[n] += value; });
  }

  void mixture(const Layer& layer) {
    const Model& m = model_;
    const int64_t count = call_.count, inner = layer.expert_down.columns, slots = count * m.chosen;
    normed_input(layer, layer.expert_gate_inner);
    product(layer.router, input_.list(), count,
            [&](int64_t t, int64_t e, float value) { scores_[t * m.experts + e] = value; });
    inner_room(layer);
#pragma omp single
    route(layer);
#pragma omp for schedule(dynamic)
    for (int64_t number = 0; number < static_cast<int64_t>(tiles_.size()); number++) {
      const Tile tile = tiles_[number];
      if (tile.expert < 0) {
        gated(layer.gate, layer.inner, tile.begin, tile.end, input_.list(), count,
              [&](int64_t i) { return shared_.values(i); });
        continue;
      }
      const int64_t offset = offsets_[tile.expert];
      const Matrix gate = layer.expert_gate_inner.from(2 * inner * tile.expert, inner);
      const Matrix up = layer.expert_gate_inner.from(2 * inner * tile.expert + inner, inner);
      gated(gate, up, tile.begin, tile.end, gathered_.data() + offset, offsets_[tile.expert + 1] - offset,
            [&](int64_t i) { return chosen_.values(offset + i); });
    }
    if (layer.expert_down.quantised()) {
#pragma omp for schedule(static) nowait
      for (int64_t slot = 0; slot < slots; slot++) chosen_.quantise(slot, layer.expert_down.kind);
    }
    if (layer.down.data && layer.down.quantised()) {
#pragma omp for schedule(static) nowait
      for (int64_t t = 0; t < count; t++) shared_.quantise(t, layer.down.kind);
    }
#pragma omp barrier
    const int64_t step = step_of(m.hidden);
#pragma omp for schedule(dynamic)
    for (int64_t tile = 0; tile < (m.hidden + step - 1) / step; tile++)
      add_experts(layer, tile * step, std::min((tile + 1) * step, m.hidden));
  }

  // Rows of the layer's output: chosen experts in the order of their numbers, then those that are shared.
  void add_experts(const Layer& layer, int64_t begin, int64_t end) {
    for (int64_t e = 0; e < model_.experts; e++) {
      const int64_t offset = offsets_[e], uses = offsets_[e + 1] - offset;
      if (!uses) continue;
      multiply(layer.expert_down.from(e * model_.hidden, model_.hidden), begin, end, chosen_.list() + offset, uses,
               [&](int64_t i, int64_t n, float value) {
                 hidden(slot_token_[offset + i])[n] += slot_gate_[offset + i] * value;
               });
    }
    if (layer.down.data)
      multiply(layer.down, begin, end, shared_.list(), call_.count,
               [&](int64_t t, int64_t n, float value) { hidden(t)[n] += value; });
  }

  // Choose experts for every token and line up who goes where; one thread.
  void route(const Layer& layer) {
    const Model& m = model_;
    const int64_t count = call_.count, experts = m.experts, inner = layer.expert_down.columns;
    std::vector<std::vector<std::pair<int64_t, float>>> users(experts);
    std::vector<int64_t> order(experts);
    for (int64_t t = 0; t < count; t++) {
      float* scores = scores_.data() + t * experts;
      const float largest = *std::max_element(scores, scores + experts);
      float sum = 0.0f;
      for (int64_t e = 0; e < experts; e++) sum += scores[e] = exponential(scores[e] - largest);
      for (int64_t e = 0; e < experts; e++) scores[e] /= sum;
      keep_groups(scores);
      std::iota(order.begin(), order.end(), 0);
      std::partial_sort(order.begin(), order.begin() + m.chosen, order.end(), [&](int64_t a, int64_t b) {
        return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
      });
      float chosen_sum = 0.0f;
      for (int64_t k = 0; k < m.chosen; k++) chosen_sum += scores[order[k]];
      const float factor = m.normalised ? 1.0f / (chosen_sum + 1e-20f) : static_cast<float>(m.routed_scale);
      for (int64_t k = 0; k < m.chosen; k++) users[order[k]].push_back({t, scores[order[k]] * factor});
    }
    offsets_.assign(experts + 1, 0);
    slot_token_.clear();
    slot_gate_.clear();
    gathered_.clear();
    tiles_.clear();
    const int64_t step = step_of(inner);
    for (int64_t e = 0; e < experts; e++) {
      for (const auto& [token, gate] : users[e]) {
        slot_token_.push_back(token);
        slot_gate_.push_back(gate);
        gathered_.push_back(input_[token]);
      }
      offsets_[e + 1] = static_cast<int64_t>(slot_token_.size());
      if (users[e].empty()) continue;
      for (int64_t begin = 0; begin < inner; begin += step) tiles_.push_back({e, begin, std::min(begin + step, inner)});
    }
    if (layer.gate.data) {
      const int64_t rows = layer.gate.rows, wide = step_of(rows);
      for (int64_t begin = 0; begin < rows; begin += wide) tiles_.push_back({-1, begin, std::min(begin + wide, rows)});
    }
    chosen_.resize(count * m.chosen, inner, layer.expert_down.quantised());
  }

  // Leave scores only in the groups with the best single expert (DeepSeek-V2 §2.2.2).
  void keep_groups(float* scores) const {
    const int64_t groups = model_.groups, size = groups ? model_.experts / groups : 0;
    if (!groups) return;
    std::vector<std::pair<float, int64_t>> best(groups);
    for (int64_t g = 0; g < groups; g++) best[g] = {-*std::max_element(scores + g * size, scores + (g + 1) * size), g};
    std::sort(best.begin(), best.end());
    for (int64_t place = model_.kept_groups; place < groups; place++)
      std::fill(scores + best[place].second * size, scores + (best[place].second + 1) * size, 0.0f);
  }

  const Model& model_;
  Cache cache_;
  Call call_{};
  int group_ = 1;
  std::vector<float> hidden_, low_, query_, compressed_, maxima_, sums_, outputs_, scores_;
  Vectors input_, query_input_, asked_, mixed_, attended_, shared_, chosen_, final_;
  std::vector<Task> tasks_;
  std::vector<int64_t> first_task_, offsets_, slot_token_;
  std::vector<float> slot_gate_;
  std::vector<Vector> gathered_;
  std::vector<Tile> tiles_;
};

}  // namespace

extern "C" {

// A pass keeps its room for the next one. The model's description has to stay where it is.
void* pass_new(const Model* model, const Cache* cache) { return new Pass(*model, *cache); }

void pass_delete(void* pass) { delete static_cast<Pass*>(pass); }

void pass_run(void* pass, const Call* call, int threads) { static_cast<Pass*>(pass)->run(*call, threads); }

}
