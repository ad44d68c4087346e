// register.js for `--import`.
import './register.js'
