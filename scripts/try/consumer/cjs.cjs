require('./exercise.cjs')(require('fusion-sqlite'), process.argv[2])
