import withBinding = require('./with-binding.js')
export default withBinding
