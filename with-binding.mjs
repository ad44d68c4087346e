// with-binding.js for `import`.
import withBinding from './with-binding.js'

export default withBinding
