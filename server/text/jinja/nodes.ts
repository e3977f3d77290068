// The statements and expressions that @huggingface/jinja's parser makes, as the interpreter reads them.

export interface Identifier {
  type: 'Identifier';
  value: string;
}
export interface Operator {
  value: string;
}
export interface KeywordArgument {
  type: 'KeywordArgumentExpression';
  key: Identifier;
  value: Node;
}
export interface Call {
  type: 'CallExpression';
  callee: Node;
  args: Node[];
}
export interface Member {
  type: 'MemberExpression';
  object: Node;
  property: Node;
  computed: boolean;
}
export interface Slice {
  type: 'SliceExpression';
  start?: Node;
  stop?: Node;
  step?: Node;
}
export interface Select {
  type: 'SelectExpression';
  lhs: Node;
  test: Node;
}
export interface For {
  type: 'For';
  loopvar: Node;
  iterable: Node;
  body: Node[];
  defaultBlock: Node[];
}
export interface Macro {
  type: 'Macro';
  name: Identifier;
  args: Node[];
  body: Node[];
}
export interface CallBlock {
  type: 'CallStatement';
  call: Call;
  callerArgs: Node[] | null;
  body: Node[];
}

export type Node =
  | Identifier
  | KeywordArgument
  | Call
  | Member
  | Slice
  | Select
  | For
  | Macro
  | CallBlock
  | { type: 'If'; test: Node; body: Node[]; alternate: Node[] }
  | { type: 'Set'; assignee: Node; value: Node | null; body: Node[] }
  | { type: 'FilterStatement'; filter: Identifier | Call; body: Node[] }
  | { type: 'Break' | 'Continue' | 'Comment' }
  | { type: 'StringLiteral'; value: string }
  | { type: 'IntegerLiteral' | 'FloatLiteral'; value: number }
  | { type: 'ArrayLiteral' | 'TupleLiteral'; value: Node[] }
  | { type: 'ObjectLiteral'; value: Map<Node, Node> }
  | { type: 'UnaryExpression'; operator: Operator; argument: Node }
  | { type: 'BinaryExpression'; operator: Operator; left: Node; right: Node }
  | { type: 'FilterExpression'; operand: Node; filter: Identifier | Call }
  | { type: 'TestExpression'; operand: Node; negate: boolean; test: Identifier }
  | { type: 'Ternary'; condition: Node; trueExpr: Node; falseExpr: Node }
  | { type: 'SpreadExpression' | 'KeywordSpreadExpression'; argument: Node };
