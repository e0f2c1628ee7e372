
// Of testify's package assert: what HumanEval-X's tests use.
type asserting struct{}
type expecting struct{ test *testing.T }

var assert asserting

func (asserting) New(test *testing.T) expecting { return expecting{test} }

func (from expecting) Equal(expected, actual interface{}, _ ...interface{}) bool {
	if !reflect.DeepEqual(expected, actual) {
		from.test.Errorf("not equal: %#v, expected %#v", actual, expected)
		return false
	}
	return true
}

