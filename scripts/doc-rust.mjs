// `npm run doc:rust`: the documentation of the Rust modules, private ones included, into target/doc. A link that leads
// nowhere, or to two things, is an error.

import { pathToFileURL } from 'node:url'
import { main, run } from './bootstrap.mjs'

/** Module tables link to private modules, which are documented here, too. */
const RUSTDOCFLAGS = '-D warnings -A rustdoc::private_intra_doc_links'

export const rustDocs = () =>
  run('cargo', ['doc', '--locked', '--no-deps', '--document-private-items'], { env: { RUSTDOCFLAGS } })

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main(rustDocs)
