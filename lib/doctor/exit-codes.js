'use strict'

// How a command ends, for scripts. 64 and above are those of sysexits.h, 130 is the shell's.

module.exports = {
  /** Healthy, or done. */
  OK: 0,
  /** It was damaged and has been repaired; no row or object is known to be missing. */
  REPAIRED: 1,
  /** It is damaged, or was repaired or recovered, and tables or rows are missing or may be. */
  DAMAGED: 2,
  /** Another process has the file locked; try again. */
  LOCKED: 3,
  /** The command line makes no sense. */
  USAGE: 64,
  /** There is no such file. */
  NO_INPUT: 66,
  /** Something went wrong that has nothing to do with the file's health. */
  FAILED: 70,
  /** Ctrl-C. */
  INTERRUPTED: 130,
}
