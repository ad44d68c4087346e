'use strict'

/**
 * Gives the constructor `face`, under `name`, the prototype of `Class`, whose members take the
 * shape of those of Node's native classes: enumerable, and with no parameters by `length`.
 */
function faceOf(Class, name, face) {
  const { prototype } = Class
  for (const key of Reflect.ownKeys(prototype)) {
    if (key === 'constructor') continue
    const member = Object.getOwnPropertyDescriptor(prototype, key)
    if (typeof member.value === 'function') {
      Object.defineProperty(member.value, 'length', { value: 0 })
    }
    Object.defineProperty(prototype, key, { ...member, enumerable: true })
  }
  Object.defineProperty(face, 'name', { value: name })
  Object.defineProperty(face, 'length', { value: 0 })
  Object.defineProperty(face, 'prototype', { value: prototype, writable: true })
  Object.defineProperty(prototype, 'constructor', {
    value: face,
    writable: true,
    enumerable: false,
    configurable: true,
  })
  return face
}

module.exports = { faceOf }
