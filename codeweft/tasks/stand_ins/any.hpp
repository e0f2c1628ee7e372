// Of Boost.Any: what HumanEval-X's solutions use; the standard's own came later.
#include <any>
namespace boost { using std::any; using std::any_cast; }
