/** The environment variables of child processes. A child must not inherit secrets of this process by default. */

/** The variables that a child inherits by default, apart from `LC_*`. */
const inheritedNames: ReadonlySet<string> = new Set([
  "HOME",
  "LANG",
  "LANGUAGE",
  "LOGNAME",
  "PATH",
  "SHELL",
  "TERM",
  "TMPDIR",
  "TZ",
  "USER"
])

const isInherited = (name: string): boolean => inheritedNames.has(name) || name.startsWith("LC_")

/** Returns the inherited variables, all or only harmless ones, and the added ones, which take precedence. */
export const environmentOf = (
  inherited: Readonly<Record<string, string | undefined>>,
  inheritsAll: boolean,
  added: Readonly<Record<string, string>>
): Record<string, string> => {
  const env: Record<string, string> = {}
  for (const [name, value] of Object.entries(inherited)) {
    if (value !== undefined && (inheritsAll || isInherited(name))) env[name] = value
  }
  return { ...env, ...added }
}
