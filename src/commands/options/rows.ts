/** The rows of the options table: fields of a struct schema that also carry the documentation of an option. */
import type * as Record from "effect/Record"
import * as Schema from "effect/Schema"

/** The groups of the documentation, in its order. */
export const groups = [
  "Listening",
  "Upstream",
  "Sessions",
  "Limits",
  "Streams",
  "Storage",
  "Security",
  "Logging",
  "Admin API"
] as const

export type Group = (typeof groups)[number]

/** A command that takes options, without `shadowcat`. */
export type CommandName =
  | "forward http"
  | "forward stdio"
  | "sessions list"
  | "sessions show"
  | "sessions close"

/** The commands of an option that only the forward proxy over HTTP takes. */
export const httpOnly: ReadonlyArray<CommandName> = ["forward http"]

/** The commands of an option that both forward proxies take. */
export const forwards: ReadonlyArray<CommandName> = ["forward http", "forward stdio"]

interface Documented {
  /** The name on the command line, without `--`. */
  readonly name: string
  readonly group: Group
  readonly description: string
  /** The commands that take the option. */
  readonly commands: ReadonlyArray<CommandName>
}

interface Valued extends Documented {
  /** The name of the value in the help. */
  readonly placeholder: string
}

/** A switch that needs no value on the command line. */
export interface SwitchInfo extends Documented {
  readonly kind: "switch"
  readonly default: boolean
}

/** An option with one value. */
export interface SingleInfo extends Valued {
  readonly kind: "single"
  /** The written form of the default; `undefined` if there is none. */
  readonly default: string | undefined
  readonly isRequired: boolean
  /** True if the program reads the environment variable, and not the command. */
  readonly isProgramWide: boolean
}

/** An option that may be given several times. */
export interface RepeatedInfo extends Valued {
  readonly kind: "repeated"
  /** Separates the values in the environment variable. */
  readonly separator: "," | "\n"
}

export type OptionInfo = SwitchInfo | SingleInfo | RepeatedInfo

/** One row of a table: a field of a struct schema, with the documentation of its option. */
export interface OptionRow {
  readonly info: OptionInfo
}

/** The options by section and key, nested like the options of the layers. */
export type OptionsTable = Record.ReadonlyRecord<string, Record.ReadonlyRecord<string, OptionRow>>

const row = <Field extends object>(field: Field, info: OptionInfo): Field & OptionRow =>
  Object.assign(field, { info })

const single = (documented: Valued, differences: Partial<SingleInfo> = {}): SingleInfo => ({
  ...documented,
  kind: "single",
  default: undefined,
  isRequired: false,
  isProgramWide: false,
  ...differences
})

type Written = string | number

/** Makes an option with a default value. */
export const withDefault = <A>({
  schema,
  default: value,
  ...documented
}: Valued & { readonly schema: Schema.Schema<A, Written>; readonly default: NoInfer<A> }) =>
  row(
    Schema.optionalWith(schema, { default: () => value }),
    single(documented, { default: String(Schema.encodeSync(schema)(value)) })
  )

/** Makes an option without a default value. */
export const optional = <A>({
  schema,
  ...documented
}: Valued & { readonly schema: Schema.Schema<A, Written> }) =>
  row(Schema.optional(schema), single(documented))

/**
 * Makes an option with an environment variable and a default that apply to the whole program. A command decodes the
 * option only from the command line.
 */
export const programWide = <A>({
  schema,
  default: value,
  ...documented
}: Valued & { readonly schema: Schema.Schema<A, Written>; readonly default: NoInfer<A> }) =>
  row(
    Schema.optional(schema),
    single(documented, { default: String(Schema.encodeSync(schema)(value)), isProgramWide: true })
  )

/** Makes an option that must have a value. */
export const required = <A>({
  schema,
  ...documented
}: Valued & { readonly schema: Schema.Schema<A, Written> }) =>
  row(Schema.propertySignature(schema), single(documented, { isRequired: true }))

/** Makes an option that may be given several times. Its schema decodes all values together. */
export const repeated = <A>({
  schema,
  default: value,
  separator,
  ...documented
}: Valued & {
  readonly schema: Schema.Schema<A, ReadonlyArray<Written>>
  readonly default: NoInfer<A>
  readonly separator: RepeatedInfo["separator"]
}) =>
  row(Schema.optionalWith(schema, { default: () => value }), { ...documented, kind: "repeated", separator })

/** Makes a switch. */
export const toggle = ({ default: value, ...documented }: Documented & { readonly default: boolean }) =>
  row(Schema.optionalWith(Schema.Boolean, { default: () => value }), {
    ...documented,
    kind: "switch",
    default: value
  })

/** An option and the path of its value in the decoded options. */
export interface ListedOption {
  readonly section: string
  readonly key: string
  readonly info: OptionInfo
}

/** Returns all options of a table, in its order. */
export const listOptions = (table: OptionsTable): ReadonlyArray<ListedOption> =>
  Object.entries(table).flatMap(([section, rows]) =>
    Object.entries(rows).map(([key, { info }]) => ({ section, key, info }))
  )

/** Returns the environment variable of an option: `SHADOWCAT_MAX_SESSIONS` for `max-sessions`. */
export const variable = (name: string): string => `SHADOWCAT_${name.toUpperCase().replaceAll("-", "_")}`
