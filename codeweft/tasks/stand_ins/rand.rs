
// Of the crate rand 0.4: what HumanEval-X's tests use. Xorshift from a fixed seed.
mod rand {
    use std::cell::Cell;
    thread_local! { static STATE: Cell<u64> = Cell::new(88172645463325252); }

    fn next() -> u64 {
        STATE.with(|state| {
            let mut bits = state.get();
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            state.set(bits);
            bits.wrapping_mul(0x2545F4914F6CDD1D)
        })
    }

    pub trait Drawn: Sized {
        fn drawn() -> Self;
        fn between(low: Self, high: Self) -> Self;
    }
    macro_rules! drawn {
        ($($kind:ty),*) => {$(impl Drawn for $kind {
            fn drawn() -> $kind { (next() >> 16) as $kind }
            fn between(low: $kind, high: $kind) -> $kind {
                assert!(low < high);
                (low as i128 + (next() >> 16) as i128 % (high as i128 - low as i128)) as $kind
            }
        })*};
    }
    drawn!(u8, i8, u32, i32, u64, i64, usize);

    pub trait Rng {
        fn gen<T: Drawn>(&mut self) -> T { T::drawn() }
        fn gen_range<T: Drawn>(&mut self, low: T, high: T) -> T { T::between(low, high) }
    }
    pub struct ThreadRng;
    impl Rng for ThreadRng {}
    pub fn thread_rng() -> ThreadRng { ThreadRng }
    pub fn random<T: Drawn>() -> T { T::drawn() }
}
