/** The type of HTTP header fields, and functions that read a field. */

/** HTTP header fields by lower-case name. A field that occurs several times may be a list. */
export type Headers = Readonly<Record<string, string | Array<string> | undefined>>

/** Header fields under construction. */
export type MutableHeaders = Record<string, string | Array<string>>

/** Returns the first value of a field. */
export const first = (headers: Headers, name: string): string | undefined => {
  const value = headers[name]
  return typeof value === "object" ? value[0] : value
}

/** Returns the media type of a `Content-Type` in lower case, without its parameters. */
export const mediaType = (headers: Headers): string | undefined =>
  first(headers, "content-type")?.split(";", 1)[0]?.trim().toLowerCase()

/** True if the body has this media type and is not compressed. */
export const isReadable = (headers: Headers, type: string): boolean =>
  hasType(headers, type) && (first(headers, "content-encoding") ?? "identity") === "identity"

/** True if the body has this media type, with any parameters. */
export const hasType = (headers: Headers, type: string): boolean => {
  const given = first(headers, "content-type")
  if (given === type) return true
  // The length alone rules out most other types.
  return given !== undefined && given.length >= type.length && mediaType(headers) === type
}
