// Of javatuples: the pair that MultiPL-E's Java signatures and tests name.
final class Pair<A, B> {
    private final A first;
    private final B second;

    public Pair(A first, B second) { this.first = first; this.second = second; }
    public static <A, B> Pair<A, B> with(A first, B second) { return new Pair<>(first, second); }
    public A getValue0() { return first; }
    public B getValue1() { return second; }
    public <C> Pair<C, B> setAt0(C value) { return new Pair<>(value, second); }
    public <C> Pair<A, C> setAt1(C value) { return new Pair<>(first, value); }
    public Object getValue(int place) { return place == 0 ? first : second; }
    public int getSize() { return 2; }
    @Override public boolean equals(Object other) {
        return other instanceof Pair && java.util.Objects.equals(first, ((Pair<?, ?>) other).first)
            && java.util.Objects.equals(second, ((Pair<?, ?>) other).second);
    }
    @Override public int hashCode() { return 31 * java.util.Objects.hashCode(first) + java.util.Objects.hashCode(second); }
    @Override public String toString() { return "[" + first + ", " + second + "]"; }
}
