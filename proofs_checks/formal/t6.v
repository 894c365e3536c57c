(** T6. If D is the gradient of a convex Phi, inversion is a strongly convex minimisation; the best relaxation. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space jacobian t3_window.
Open Scope R_scope.

(** [Hgradient]: D u is a subgradient of Phi at every u, which says that Phi is convex and, where Phi is differentiable,
    that D is its gradient.  The solution is the only minimiser, and the objective grows quadratically away from it. *)
Theorem t6_minimiser (V : NormedModule R_AbsRing) (ip : InnerProduct V) (D : V -> V) (Phi : V -> R) (rho : R) (y_s y : V)
  (Hrho : 0 <= rho <= 1)
  (Hgradient : forall u v, Phi u + ⟨D u, v [-] u⟩ <= Phi v)
  (Hsolution : rho [*] y [+] (1 - rho) [*] D y = y_s) :
  let objective := fun u => rho / 2 * norm u ^ 2 + (1 - rho) * Phi u - ⟨y_s, u⟩ in
  forall v, objective y + rho / 2 * norm (v [-] y) ^ 2 <= objective v.
Proof.
  intros objective v; unfold objective; rewrite <- Hsolution, <- !inner_norm.
  assert (H := Rmult_le_compat_l (1 - rho) _ _ ltac:(lra) (Hgradient y v)).
  revert H; inner_expand; rewrite (inner_sym v y); lra.
Qed.

(** The converse, for a Lipschitz D: a minimiser solves F(y) = y_s. *)
Theorem t6_solution (V : NormedModule R_AbsRing) (ip : InnerProduct V) (D : V -> V) (Phi : V -> R) (rho Lambda : R)
  (y_s y : V)
  (Hrho : 0 <= rho <= 1)
  (HLambda : 0 <= Lambda)
  (Hgradient : forall u v, Phi u + ⟨D u, v [-] u⟩ <= Phi v)
  (Hlipschitz : forall u v, norm (D u [-] D v) <= Lambda * norm (u [-] v))
  (Hminimiser : forall v, rho / 2 * norm y ^ 2 + (1 - rho) * Phi y - ⟨y_s, y⟩
    <= rho / 2 * norm v ^ 2 + (1 - rho) * Phi v - ⟨y_s, v⟩) :
  rho [*] y [+] (1 - rho) [*] D y = y_s.
Proof.
  set (F := fun u => rho [*] u [+] (1 - rho) [*] D u); set (g := F y [-] y_s).
  set (K := rho + (1 - rho) * Lambda).
  assert (HK : 0 <= K) by (unfold K; assert (0 <= (1 - rho) * Lambda) by (apply Rmult_le_pos; lra); lra).
  set (t := / (2 * (K + 1))).
  assert (Ht : 0 < t) by (apply Rinv_0_lt_compat; lra).
  set (v := y [+] (- t) [*] g).
  assert (HF : norm (F y [-] F v) <= K * norm (y [-] v)).
  { unfold F; replace (rho [*] y [+] (1 - rho) [*] D y [-] (rho [*] v [+] (1 - rho) [*] D v))
      with (rho [*] (y [-] v) [+] (1 - rho) [*] (D y [-] D v)) by vector.
    apply Rle_trans with (1 := norm_triangle _ _); rewrite !norm_scal_eq, !Rabs_pos_eq by lra.
    assert (H := Rmult_le_compat_l (1 - rho) _ _ ltac:(lra) (Hlipschitz y v)); unfold K; lra. }
  assert (Hv : norm (y [-] v) = t * norm g).
  { unfold v; replace (y [-] (y [+] (- t) [*] g)) with (t [*] g) by vector.
    rewrite norm_scal_eq, Rabs_pos_eq; lra. }
  assert (H0 : ⟨F v [-] y_s, g⟩ <= 0).
  { assert (H1 := t6_minimiser V ip D Phi rho (F v) v Hrho Hgradient eq_refl y).
    assert (H2 := Hminimiser v); simpl in H1, H2.
    assert (H3 : 0 <= rho / 2 * norm (y [-] v) ^ 2) by (apply Rmult_le_pos; [lra|apply pow2_ge_0]).
    assert (H4 : ⟨F v [-] y_s, y [-] v⟩ <= 0).
    { unfold minus; rewrite inner_plus, inner_opp, !inner_plus_r, !inner_opp_r; simpl in H3; lra. }
    replace (y [-] v) with (t [*] g) in H4 by (unfold v; vector).
    rewrite inner_scal_r in H4; apply Rmult_le_reg_l with t; lra. }
  assert (H1 : norm g ^ 2 <= ⟨F y [-] F v, g⟩).
  { rewrite <- inner_norm; unfold g at 1.
    replace (F y [-] y_s) with ((F y [-] F v) [+] (F v [-] y_s)) by vector.
    rewrite inner_plus; lra. }
  assert (H2 := inner_le_norm (F y [-] F v) g); assert (Hg := norm_ge_0 g).
  assert (H3 : norm (F y [-] F v) * norm g <= K * (t * norm g) * norm g).
  { apply Rmult_le_compat_r; [exact Hg|]; now rewrite <- Hv. }
  assert (Hkt : K * t <= / 2).
  { unfold t; apply Rmult_le_reg_r with (2 * (K + 1)); [lra|].
    replace (K * / (2 * (K + 1)) * (2 * (K + 1))) with K by (field; lra); lra. }
  assert (H4 : K * t * norm g ^ 2 <= / 2 * norm g ^ 2) by (apply Rmult_le_compat_r; [apply pow2_ge_0|exact Hkt]).
  assert (E : F y = y_s).
  { apply norm_minus_eq; fold g.
    destruct Hg as [Hg|Hg]; [|lra].
    assert (0 < norm g ^ 2) by now apply pow_lt. lra. }
  exact E.
Qed.

(** The best relaxation for a symmetric Jacobian between 0 and Lambda, and its rate. *)
Theorem t6_rate (V : NormedModule R_AbsRing) (ip : InnerProduct V) (D : V -> V) (J : V -> V -> V) (rho Lambda : R) (y_s : V)
  (Hrho : 0 < rho <= 1)
  (HLambda : 0 <= Lambda)
  (HJ : forall y, filterdiff D (locally y) (J y))
  (Hsymmetric : forall y u v, ⟨J y u, v⟩ = ⟨u, J y v⟩)
  (Hlower : forall y v, 0 <= ⟨J y v, v⟩)
  (Hupper : forall y v, ⟨J y v, v⟩ <= Lambda * norm v ^ 2) :
  let omega := 2 / (2 * rho + (1 - rho) * Lambda) in
  let q := (1 - rho) * Lambda / (2 * rho + (1 - rho) * Lambda) in
  let T := fun y => y [+] omega [*] (y_s [-] (rho [*] y [+] (1 - rho) [*] D y)) in
  0 <= q < 1 /\ forall u v, norm (T u [-] T v) <= q * norm (u [-] v).
Proof.
  intros omega q T.
  assert (HL : 0 <= (1 - rho) * Lambda) by (apply Rmult_le_pos; lra).
  set (s := 2 * rho + (1 - rho) * Lambda) in *.
  assert (Hs : 0 < s) by (unfold s; lra).
  assert (Hq : 0 <= q < 1).
  { unfold q; split; [apply Rdiv_le_0_compat; lra|apply Rlt_div_l; unfold s; lra]. }
  split; [exact Hq|]; intros u v.
  set (M := fun y h : V => (1 - omega * rho) [*] h [+] (- (omega * (1 - rho))) [*] J y h).
  set (S := fun y : V => (1 - omega * rho) [*] y [+] (- (omega * (1 - rho))) [*] D y).
  replace (T u [-] T v) with (S u [-] S v) by (unfold S, T; vector).
  apply (jacobian_lipschitz S M u (norm (v [-] u)) q).
  - intros y _; unfold S, M.
    apply (filterdiff_plus_fct (fun y => (1 - omega * rho) [*] y) (fun y => (- (omega * (1 - rho))) [*] D y)
      (fun h => (1 - omega * rho) [*] h) (fun h => (- (omega * (1 - rho))) [*] J y h)).
    + apply filterdiff_linear; exact (@is_linear_scal_r R_AbsRing V (1 - omega * rho) Rmult_comm).
    + apply (filterdiff_comp' D (fun z => (- (omega * (1 - rho))) [*] z) y (J y)
        (fun z => (- (omega * (1 - rho))) [*] z)); [apply HJ|].
      apply filterdiff_linear; exact (@is_linear_scal_r R_AbsRing V (- (omega * (1 - rho))) Rmult_comm).
  - intros y h _; apply symmetric_norm.
    + intros a b; unfold M; destruct (HJ y) as [[Hplus _ _] _]; rewrite Hplus; vector.
    + intros a b; unfold M; destruct (HJ y) as [[_ Hscal _] _].
      replace (J y (a [*] b)) with (a [*] J y b) by (symmetry; apply Hscal); vector.
    + intros a b; unfold M; inner_expand; rewrite Hsymmetric; ring.
    + intros a; unfold M; rewrite inner_plus, !inner_scal, inner_norm.
      assert (H1 := Hlower y a); assert (H2 := Hupper y a); assert (H3 := pow2_ge_0 (norm a)).
      assert (E1 : 1 - omega * rho = q) by (unfold omega, q, s; unfold s in Hs; field; lra).
      assert (Ho : 0 <= omega * (1 - rho)).
      { apply Rmult_le_pos; [unfold omega; left; apply Rdiv_lt_0_compat; lra|lra]. }
      assert (E2 : omega * (1 - rho) * Lambda = 2 * q) by (unfold omega, q; field; lra).
      assert (H4 := Rmult_le_compat_l _ _ _ Ho H2); assert (H5 := Rmult_le_pos _ _ Ho H1).
      rewrite <- Rmult_assoc, E2 in H4; rewrite E1; apply Rabs_le_between; lra.
  - rewrite norm_minus_refl; apply norm_ge_0.
  - lra.
Qed.
