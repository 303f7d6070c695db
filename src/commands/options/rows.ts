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
  /** The word for a value in the help. */
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
  /** The default as people write it, or `undefined` if there is none. */
  readonly default: string | undefined
  readonly isRequired: boolean
  /** True if the environment variable is read for the whole program and not by the command. */
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

/** Options by section and key, nested as the options of the layers are. */
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

/** An option with a default value. */
export const withDefault = <A>({
  schema,
  default: value,
  ...documented
}: Valued & { readonly schema: Schema.Schema<A, Written>; readonly default: NoInfer<A> }) =>
  row(
    Schema.optionalWith(schema, { default: () => value }),
    single(documented, { default: String(Schema.encodeSync(schema)(value)) })
  )

/** An option that has no value by default. */
export const optional = <A>({
  schema,
  ...documented
}: Valued & { readonly schema: Schema.Schema<A, Written> }) =>
  row(Schema.optional(schema), single(documented))

/**
 * An option whose environment variable and default apply to the whole program. A command decodes it only from its own
 * command line.
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

/** An option that must have a value. */
export const required = <A>({
  schema,
  ...documented
}: Valued & { readonly schema: Schema.Schema<A, Written> }) =>
  row(Schema.propertySignature(schema), single(documented, { isRequired: true }))

/** An option that may be given several times. Its schema decodes all values together. */
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

/** A switch. */
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

/** All options of a table, in its order. */
export const listOptions = (table: OptionsTable): ReadonlyArray<ListedOption> =>
  Object.entries(table).flatMap(([section, rows]) =>
    Object.entries(rows).map(([key, { info }]) => ({ section, key, info }))
  )

/** The environment variable of an option: `SHADOWCAT_MAX_SESSIONS` for `max-sessions`. */
export const variable = (name: string): string => `SHADOWCAT_${name.toUpperCase().replaceAll("-", "_")}`
