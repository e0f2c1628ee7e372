
// Of the crate md5: compute, whose result prints as hexadecimal digits (RFC 1321).
mod md5 {
    pub struct Digest([u8; 16]);

    impl std::fmt::LowerHex for Digest {
        fn fmt(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
            self.0.iter().try_for_each(|byte| write!(to, "{:02x}", byte))
        }
    }

    pub fn compute<T: AsRef<[u8]>>(data: T) -> Digest {
        let shifts = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
        let (mut bytes, bits) = (data.as_ref().to_vec(), data.as_ref().len() as u64 * 8);
        bytes.push(0x80);
        while bytes.len() % 64 != 56 { bytes.push(0); }
        bytes.extend(bits.to_le_bytes());
        let mut state: [u32; 4] = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476];
        for block in bytes.chunks(64) {
            let words: Vec<u32> = block.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
            let [mut a, mut b, mut c, mut d] = state;
            for step in 0..64 {
                let (mixed, word) = match step / 16 {
                    0 => ((b & c) | (!b & d), step),
                    1 => ((d & b) | (!d & c), (5 * step + 1) % 16),
                    2 => (b ^ c ^ d, (3 * step + 5) % 16),
                    _ => (c ^ (b | !d), 7 * step % 16),
                };
                let sine = ((step as f64 + 1.0).sin().abs() * 4294967296.0) as u32;
                let sum = a.wrapping_add(mixed).wrapping_add(sine).wrapping_add(words[word]);
                (a, d, c) = (d, c, b);
                b = b.wrapping_add(sum.rotate_left(shifts[step / 16][step % 4]));
            }
            for (held, new) in state.iter_mut().zip([a, b, c, d]) { *held = held.wrapping_add(new); }
        }
        let mut digest = [0; 16];
        for (place, word) in state.iter().enumerate() { digest[place * 4..][..4].copy_from_slice(&word.to_le_bytes()); }
        Digest(digest)
    }
}
