(** From Jacobians to finite differences: what a bound on F'(y) over a ball says about F there.

    [filterdiff F (locally y) (DF y)] is the library's Frechet derivative: F is differentiable at y, with
    derivative the bounded linear map DF y. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space.
Open Scope R_scope.

Lemma segment_in_ball {V : NormedModule R_AbsRing} (c u v : V) (r t : R) :
  0 <= t <= 1 -> norm (u [-] c) <= r -> norm (v [-] c) <= r -> norm ((u [+] t [*] (v [-] u)) [-] c) <= r.
Proof.
  intros Ht Hu Hv.
  replace (u [+] t [*] (v [-] u) [-] c) with ((1 - t) [*] (u [-] c) [+] t [*] (v [-] c)) by vector.
  apply Rle_trans with (1 := norm_triangle _ _).
  rewrite !norm_scal_eq, !Rabs_pos_eq by lra.
  assert ((1 - t) * norm (u [-] c) <= (1 - t) * r) by (apply Rmult_le_compat_l; lra).
  assert (t * norm (v [-] c) <= t * r) by (apply Rmult_le_compat_l; lra).
  lra.
Qed.

Lemma inner_linear {V : NormedModule R_AbsRing} {ip : InnerProduct V} (w : V) :
  @is_linear R_AbsRing V R_NormedModule (fun u => ⟨u, w⟩).
Proof.
  split.
  - intros x y; apply inner_plus.
  - intros k x; apply inner_scal.
  - exists (norm w + 1); split; [assert (H := norm_ge_0 w); lra|].
    intros x; change (norm ⟨x, w⟩) with (Rabs ⟨x, w⟩).
    apply Rle_trans with (1 := cauchy_schwarz x w); assert (H := norm_ge_0 x); lra.
Qed.

(** The mean value theorem along a segment, seen from any direction w. *)
Lemma mean_value {V : NormedModule R_AbsRing} {ip : InnerProduct V} (F : V -> V) (DF : V -> V -> V) (u v w : V) :
  (forall t, 0 <= t <= 1 -> filterdiff F (locally (u [+] t [*] (v [-] u))) (DF (u [+] t [*] (v [-] u)))) ->
  exists t, 0 <= t <= 1 /\ ⟨F v [-] F u, w⟩ = ⟨DF (u [+] t [*] (v [-] u)) (v [-] u), w⟩.
Proof.
  intros HF.
  set (p := fun t : R => u [+] t [*] (v [-] u)).
  set (g := fun t : R => ⟨F (p t), w⟩).
  assert (Hp : forall t, filterdiff p (locally t) (fun s => s [*] (v [-] u))).
  { intros t; unfold p.
    apply filterdiff_ext_lin with (fun s => (zero : V) [+] s [*] (v [-] u)).
    - apply (filterdiff_plus_fct (fun _ => u) (fun t => t [*] (v [-] u))).
      + apply filterdiff_const.
      + apply filterdiff_linear; exact (@is_linear_scal_l R_AbsRing V (v [-] u)).
    - intros y; vector. }
  assert (Hg : forall t, 0 <= t <= 1 -> is_derive g t ⟨DF (p t) (v [-] u), w⟩).
  { intros t Ht; specialize (HF t Ht); change (u [+] t [*] (v [-] u)) with (p t) in HF.
    unfold is_derive, g.
    apply filterdiff_ext_lin with (fun s : R => ⟨DF (p t) (s [*] (v [-] u)), w⟩).
    - apply (filterdiff_comp' (fun t => F (p t)) (fun z => ⟨z, w⟩) t
        (fun s => DF (p t) (s [*] (v [-] u))) (fun z => ⟨z, w⟩)).
      + apply (filterdiff_comp' p F t (fun s => s [*] (v [-] u)) (DF (p t))); [apply Hp|exact HF].
      + apply filterdiff_linear, inner_linear.
    - intros s; destruct HF as [[_ Hs _] _].
      change (⟨DF (p t) (s [*] (v [-] u)), w⟩ = s * ⟨DF (p t) (v [-] u), w⟩).
      rewrite Hs; apply inner_scal. }
  destruct (MVT_gen g 0 1 (fun t => ⟨DF (p t) (v [-] u), w⟩)) as (t & Ht & E).
  - intros t Ht; rewrite Rmin_left, Rmax_right in Ht by lra; apply Hg; lra.
  - intros t Ht; rewrite Rmin_left, Rmax_right in Ht by lra.
    apply continuity_pt_filterlim, (ex_derive_continuous g).
    eexists; apply Hg; exact Ht.
  - rewrite Rmin_left, Rmax_right in Ht by lra; exists t; split; [exact Ht|].
    replace (F v [-] F u) with (F (p 1) [-] F (p 0)).
    + unfold minus; rewrite inner_plus, inner_opp; unfold g in E; rewrite Rminus_0_r, Rmult_1_r in E; exact E.
    + unfold p; f_equal; [f_equal; vector|f_equal; f_equal; vector].
Qed.

(** A lower bound of the quadratic form of F' on a ball is a modulus of monotonicity there. *)
Lemma jacobian_monotone {V : NormedModule R_AbsRing} {ip : InnerProduct V} (F : V -> V) (DF : V -> V -> V)
  (c : V) (r m : R) :
  (forall y, norm (y [-] c) <= r -> filterdiff F (locally y) (DF y)) ->
  (forall y h, norm (y [-] c) <= r -> m * norm h ^ 2 <= ⟨DF y h, h⟩) ->
  forall u v, norm (u [-] c) <= r -> norm (v [-] c) <= r -> m * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩.
Proof.
  intros HF Hm u v Hu Hv.
  destruct (mean_value F DF v u (u [-] v)) as (t & Ht & E).
  - intros t Ht; apply HF; now apply segment_in_ball.
  - rewrite E; apply Hm; now apply segment_in_ball.
Qed.

(** A bound of the norm of F' on a ball is a Lipschitz constant there. *)
Lemma jacobian_lipschitz {V : NormedModule R_AbsRing} {ip : InnerProduct V} (F : V -> V) (DF : V -> V -> V)
  (c : V) (r K : R) :
  (forall y, norm (y [-] c) <= r -> filterdiff F (locally y) (DF y)) ->
  (forall y h, norm (y [-] c) <= r -> norm (DF y h) <= K * norm h) ->
  forall u v, norm (u [-] c) <= r -> norm (v [-] c) <= r -> norm (F u [-] F v) <= K * norm (u [-] v).
Proof.
  intros HF HK u v Hu Hv.
  destruct (mean_value F DF v u (F u [-] F v)) as (t & Ht & E).
  - intros t Ht; apply HF; now apply segment_in_ball.
  - rewrite inner_norm in E.
    assert (Hy : norm ((v [+] t [*] (u [-] v)) [-] c) <= r) by now apply segment_in_ball.
    assert (H1 := inner_le_norm (DF (v [+] t [*] (u [-] v)) (u [-] v)) (F u [-] F v)).
    assert (H2 := HK _ (u [-] v) Hy); rewrite <- E in H1.
    assert (H3 := norm_ge_0 (F u [-] F v)).
    destruct H3 as [H3|H3].
    + apply Rmult_le_reg_r with (norm (F u [-] F v)); [exact H3|].
      assert (norm (DF (v [+] t [*] (u [-] v)) (u [-] v)) * norm (F u [-] F v)
        <= K * norm (u [-] v) * norm (F u [-] F v)) by (apply Rmult_le_compat_r; lra).
      lra.
    + rewrite <- H3; apply Rle_trans with (2 := H2), norm_ge_0.
Qed.
