/**
 * Loads fusion-sqlite on a binary that the application names, for bundles and single executables,
 * where the package cannot find its own. Before anything else of this thread loads the package; each
 * worker thread names it again. FUSION_SQLITE_BINDING=/path/to/file.node does the same for all.
 *
 * @param nativeBinding path of a `.node` file, or the exports of the addon, loaded already.
 * @throws `ERR_FUSION_BINARY` if it does not load; `ERR_INVALID_STATE` if the package is loaded with
 *   another; `ERR_INVALID_ARG_TYPE`.
 */
declare function withBinding(nativeBinding: string | object): typeof import('./index.js')
export = withBinding
