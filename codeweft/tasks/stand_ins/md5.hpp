// Of OpenSSL's md5.h: what solutions of HumanEval's last problem but one call (RFC 1321).
#include <math.h>
#include <string.h>
#include <string>
struct MD5_CTX { std::string text; };
static void MD5_Init(MD5_CTX *context) { context->text.clear(); }
static void MD5_Update(MD5_CTX *context, const unsigned char *data, size_t length) {
    context->text.append((const char *) data, length);
}
static void MD5_Final(unsigned char *digest, MD5_CTX *context) {
    static const int shifts[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
    std::string text = context->text;
    unsigned long long bits = text.size() * 8ull;
    text += '\x80';
    while (text.size() % 64 != 56) text += '\0';
    text.append((const char *) &bits, 8);
    unsigned state[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
    for (size_t block = 0; block < text.size(); block += 64) {
        unsigned words[16], a = state[0], b = state[1], c = state[2], d = state[3];
        memcpy(words, text.data() + block, 64);
        for (int step = 0; step < 64; step++) {
            int word = step;
            unsigned mixed = (b & c) | (~b & d);
            if (step >= 48) mixed = c ^ (b | ~d), word = 7 * step % 16;
            else if (step >= 32) mixed = b ^ c ^ d, word = (3 * step + 5) % 16;
            else if (step >= 16) mixed = (d & b) | (~d & c), word = (5 * step + 1) % 16;
            unsigned sum = a + mixed + (unsigned) (fabs(sin(step + 1)) * 4294967296.0) + words[word];
            int shift = shifts[step / 16][step % 4];
            a = d, d = c, c = b;
            b += sum << shift | sum >> (32 - shift);
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    }
    memcpy(digest, state, 16);
}
#define MD5_DIGEST_LENGTH 16
static unsigned char *MD5(const unsigned char *data, size_t length, unsigned char *digest) {
    MD5_CTX context;
    MD5_Init(&context);
    MD5_Update(&context, data, length);
    MD5_Final(digest, &context);
    return digest;
}
