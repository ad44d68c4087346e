// The demo imports the file above it.
export * from 'fusion-sqlite'
