// A registry on 127.0.0.1 with the packages of npm/ alone, for `npm run pack:try`: package managers ask
// one for optional dependencies, even of a tarball that they have.

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import path from 'node:path'

/** Package managers may refuse what was published only just now. */
const PUBLISHED = '2026-01-01T00:00:00.000Z'

/** What a registry answers for a package with one version. */
function packument(manifest, tarball, url) {
  const content = readFileSync(tarball)
  const { name, version } = manifest
  const dist = {
    tarball: `${url}/${name}/-/${path.basename(tarball)}`,
    integrity: `sha512-${createHash('sha512').update(content).digest('base64')}`,
    shasum: createHash('sha1').update(content).digest('hex'),
  }
  return {
    name,
    'dist-tags': { latest: version },
    time: { created: PUBLISHED, modified: PUBLISHED, [version]: PUBLISHED },
    versions: { [version]: { ...manifest, _id: `${name}@${version}`, dist } },
  }
}

/** Serves `packages`, each a manifest and its tarball, until `close()`; `asked` has what it had not. */
export async function serve(packages) {
  const byName = new Map(packages.map((one) => [one.manifest.name, one]))
  const asked = []
  const server = http.createServer((request, response) => {
    const [name, dash] = decodeURIComponent(new URL(request.url, url).pathname).slice(1).split('/')
    const found = byName.get(name)
    if (found === undefined || request.method !== 'GET') {
      asked.push(`${request.method} ${request.url}`)
      response.writeHead(404, { 'content-type': 'application/json' }).end('{"error":"not found"}')
    } else if (dash === '-') {
      response.writeHead(200, { 'content-type': 'application/octet-stream' }).end(readFileSync(found.tarball))
    } else {
      const body = JSON.stringify(packument(found.manifest, found.tarball, url))
      response.writeHead(200, { 'content-type': 'application/json' }).end(body)
    }
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${server.address().port}`
  const close = () =>
    new Promise((resolve) => {
      server.close(resolve)
      server.closeAllConnections()
    })
  return { url, asked, close }
}
