// Products with quantised matrices, and quantised matrices as plain numbers. Called by products.py.
//
// In:  a matrix in groups of 32 columns (products.h), vectors in float32.  Out: results in place, float32 or bfloat16.

#include "products.h"

namespace {

template <class T>
void dequantise(const Matrix& matrix, T* result, int threads) {
  const int64_t groups = matrix.columns / GROUP;
#pragma omp parallel for num_threads(threads)
  for (int64_t n = 0; n < matrix.rows; n++) {
    T* row = result + n * matrix.columns;
    for (int64_t g = 0; g < groups; g++, row += GROUP) {
      const float scale = half_to_float(matrix.scales[n * groups + g]);
      if (matrix.kind == EIGHT_BITS) {
        const int8_t* bytes = static_cast<const int8_t*>(matrix.data) + (n * groups + g) * GROUP;
        for (int i = 0; i < GROUP; i++) write(row[i], scale * static_cast<float>(bytes[i]));
      } else {
        const uint8_t* bytes = static_cast<const uint8_t*>(matrix.data) + (n * groups + g) * (GROUP / 2);
        for (int i = 0; i < GROUP / 2; i++) {
          write(row[i], scale * static_cast<float>((bytes[i] & 15) - 8));
          write(row[i + 16], scale * static_cast<float>((bytes[i] >> 4) - 8));
        }
      }
    }
  }
}

}  // namespace

extern "C" {

// y[count, rows] = x[count, columns] times the matrix's transpose
void multiply_float32(const Matrix* matrix, const float* x, int64_t count, float* y, int threads) {
  Vectors vectors;
  vectors.resize(count, matrix->columns, matrix->quantised());
  const int64_t rows = matrix->rows;
#pragma omp parallel num_threads(threads)
  {
#pragma omp for
    for (int64_t m = 0; m < count; m++) {
      std::memcpy(vectors.values(m), x + m * matrix->columns, 4 * matrix->columns);
      if (matrix->quantised()) vectors.quantise(m, matrix->kind);
    }
#pragma omp for schedule(static)
    for (int64_t tile = 0; tile < (rows + TILE - 1) / TILE; tile++)
      multiply(*matrix, tile * TILE, std::min((tile + 1) * TILE, rows), vectors.list(), count,
               [&](int64_t m, int64_t n, float value) { y[m * rows + n] = value; });
  }
}

void dequantize_float32(const Matrix* matrix, float* result, int threads) { dequantise(*matrix, result, threads); }

void dequantize_bfloat16(const Matrix* matrix, bfloat16* result, int threads) { dequantise(*matrix, result, threads); }

}
