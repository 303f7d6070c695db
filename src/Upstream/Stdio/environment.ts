/** The environment variables of child processes. Secrets of this process must not reach a child by accident. */

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

/** Merges the inherited variables, either the default ones or all, with the added ones, which take precedence. */
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
