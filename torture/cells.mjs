// The rows of the matrix: what is done to a database while agents write to it.
//
// | property            | meaning                                                                              |
// | ------------------- | ------------------------------------------------------------------------------------ |
// | `fault(arena)`      | one fault; between two of them every process ends some more calls                     |
// | `closesDescriptors` | a descriptor of the file is closed in the process, which drops POSIX locks            |
// | `movesFiles`        | what is at the path is `replaced`, or `deleted` beside it                             |
// | `allows`            | failures and events that the documents announce for it                                |
// | `visited`           | a process opens, writes and closes all the while, so that one may think it is the last |

const inProcess = (name, title, command) => ({
  name,
  title,
  closesDescriptors: true,
  visited: true,
  fault: (arena) => arena.each(arena.faulty, command),
})

export const cells = [
  inProcess('copy', 'fs.cp of the database, -wal and -shm in the process', 'copy'),
  inProcess('raw-open', 'open and close of the three files in the process', 'rawOpen'),
  inProcess('second-library', 'a second SQLite library in the process', 'second'),
]
